"""Shared memory that nodes have left behind.

A node that ends in order frees its segment, which is 64 MiB with our profile. One that is killed,
or that crashes, does not, and Fast DDS never looks at it again: a robot whose nodes are restarted
for a week runs out of memory. Whoever owns a segment holds a lock on a file beside it, which the
system takes away with the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MIB = 1024**2
FOLDER = Path("/dev/shm")
SEGMENT = re.compile(r"fast(rtps|dds)_[0-9a-f]{16}")
LOCK = "_el"
# Between making the lock's file and locking it, an owner that lives looks like one that does not.
SETTLED_S = 10.0


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the lock; then this process does, until the end."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:  # it has just gone, or is another user's
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


def _left(segment: Path, lock: Path) -> int:
    """Size of a segment, bytes; 0: it is new, or gone."""
    try:
        settled = time.time() - lock.stat().st_mtime > SETTLED_S
        return segment.stat().st_size if settled else 0
    except OSError:
        return 0


def left_behind(folder: Path = FOLDER, *, remove: bool = False) -> tuple[int, int]:
    """How many segments nodes that are no more have left, and bytes in all.

    Args:
        folder: where the system keeps shared memory.
        remove: free them.
    """
    count = size = 0
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return 0, 0
    for name in names:
        segment, lock = folder / name, folder / (name + LOCK)
        if not SEGMENT.fullmatch(name):
            continue
        with _locked(lock) as free:
            left = _left(segment, lock) if free else 0
            if not left:
                continue
            if remove:
                # The lock's file last: as long as it is there the segment can be found.
                with suppress(OSError):
                    segment.unlink()
                    lock.unlink()
            count, size = count + 1, size + left
    return count, size
