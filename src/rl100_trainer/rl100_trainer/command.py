"""Runs a command line that typer has read, so that wrong options give one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.exceptions import TyperException

from rl100_contracts.errors import ContractError


def call(command: Any, arguments: Sequence[str] | None, name: str) -> None:
    """Run a click command with its arguments (None: the process's); wrong ones give a sentence.

    Raises:
        ContractError: what is wrong with the arguments.
        SystemExit: the command asks for an exit status.
    """
    try:
        status = command(args=arguments, prog_name=name, standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            print(error.format_message())
            raise SystemExit(2) from None
        path = name if context is None else context.command_path
        said = " ".join(error.format_message().split()).rstrip(".")
        raise ContractError(
            f"{path}: {said[:1].lower()}{said[1:]}; {path} --help shows what it takes"
        ) from None
    if isinstance(status, int) and status:
        raise SystemExit(status)
