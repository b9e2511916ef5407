"""From the name of an interface to its Python class."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rl100_contracts.errors import ContractError


def message_class(kind: str) -> Any:
    """Class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        ContractError: the package is not sourced or has no such message.
    """
    package, _, name = kind.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise ContractError(
            f"message type '{kind}' cannot be imported: source the workspace that defines it"
        ) from None
