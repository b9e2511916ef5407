"""Runs a command again inside the extra's environment, where Meta-World lives."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

METAWORLD = "metaworld:"
EXTRA = ".venv-metaworld"


def enter_environment(task: str) -> None:
    """Replace this process by the same command in the extra's environment, if ``task`` needs it.

    Does nothing where Meta-World is installed already, or where the extra is not set up (then the
    task's own message tells how).
    """
    if not task.startswith(METAWORLD) or importlib.util.find_spec("metaworld") is not None:
        return
    python = Path(os.environ.get("RL100_ROOT", ".")) / EXTRA / "bin" / "python"
    if not python.is_file():
        return
    # The main environment's packages must not reach into the other one.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    sys.stdout.flush()
    os.execve(python, [str(python), "-m", "rl100.cli", *sys.argv[1:]], environment)
