"""One training at a time in a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from rl100_contracts.errors import ContractError


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the folder, which is made for it, and taken away again where nothing came into it.

    The lock is the kernel's, on the folder itself: it ends with the process, however that ends,
    and leaves no file behind.

    Raises:
        ContractError: another process holds it.
        OSError: the folder can't be made.
    """
    made = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ContractError(
                f"{run}: another training is running in this folder: wait for its end, or give "
                "another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                run.rmdir()  # only while it is empty
