"""A disc that is full or can't be written, told in one sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from safetensors import SafetensorError

from rl100_contracts.errors import ContractError

#: What the system says where a disc is full or a folder can't be written.
DISC = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)


def cannot_be_written(what: str, error: OSError | SafetensorError, then: str) -> ContractError:
    """The sentence about a write that failed; see :func:`disc_told`."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ContractError(
        f"{what} cannot be written ({reason}): make room or mend the folder, then give the "
        f"same command again; {then}"
    )


@contextlib.contextmanager
def disc_told(what: str, then: str) -> Iterator[None]:
    """Within it, a write that the disc refuses raises ContractError; other errors stay as they are.

    Args:
        what: is written: a folder, and what of it.
        then: what the same command does when it is given again.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in DISC:
            raise
        raise cannot_be_written(what, error, then) from None
