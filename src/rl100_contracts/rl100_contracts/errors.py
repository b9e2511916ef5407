"""The one exception that a user's mistake raises, and its way out of a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class ContractError(ValueError):
    """A mistake that a person can mend: one sentence naming the file, key or topic and the mend."""


class Interrupted(Exception):
    """Work was interrupted on purpose (Ctrl-C or SIGTERM); the text says what was kept."""


#: Exit status after a mistake that the user can mend.
MISTAKE = 2


def fail(message: str, code: int = MISTAKE) -> NoReturn:
    """Print one sentence on standard error and leave with a non-zero exit status."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a command so that a user's mistake gives one sentence and never a traceback.

    Exit status: what ``main`` returns (None is 0), 2 after a ContractError, 130 after Ctrl-C.
    """
    try:
        raise SystemExit(main() or 0)
    except ContractError as error:
        fail(str(error))
    except Interrupted as error:
        fail(str(error), code=130)
    except KeyboardInterrupt:
        fail("interrupted", code=130)
