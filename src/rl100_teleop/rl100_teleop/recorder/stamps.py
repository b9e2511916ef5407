"""Which simulated world a message belongs to, told by nothing but the stamps."""

from __future__ import annotations

from enum import Enum


class Place(Enum):
    """Where a message belongs."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NEW_WORLD = "new world"


class WorldClock:
    """Follows the stamps of all streams through resets and restarts of a simulated world.

    A reset moves the clock forward in a jump, a restarted simulator moves it back. Each stream
    comes in order, but different streams don't: after a jump, stragglers of the world before are
    told from the new one because *their* stream hasn't jumped yet.

    Args:
        jump_ns: a larger step of the stamps is a jump.
    """

    def __init__(self, jump_ns: int) -> None:
        self._jump_ns = jump_ns
        self._last: dict[str, int] = {}
        self._floor_ns = 0
        self.newest_ns = 0

    def begin(self) -> None:
        """From now on only what is newer than anything seen so far is HERE."""
        self._floor_ns = self.newest_ns + 1

    def is_stale(self, stamp_ns: int) -> bool:
        """Whether a stamp lies before the present world."""
        return stamp_ns < self._floor_ns

    def see(self, stream: str, stamp_ns: int) -> Place:
        """Place the next message of a stream by its header stamp, ns."""
        before = self._last.get(stream)
        self._last[stream] = stamp_ns
        went_back = before is not None and stamp_ns < before - self._jump_ns
        if went_back and stamp_ns < self.newest_ns - self._jump_ns:
            return self._enter(stamp_ns)
        if self.newest_ns and stamp_ns > self.newest_ns + self._jump_ns:
            if before is not None and stamp_ns <= before + self._jump_ns:
                return Place.ELSEWHERE
            return self._enter(stamp_ns)
        self.newest_ns = max(self.newest_ns, stamp_ns)
        return Place.ELSEWHERE if stamp_ns < self._floor_ns else Place.HERE

    def _enter(self, stamp_ns: int) -> Place:
        self._floor_ns = self.newest_ns = stamp_ns
        return Place.NEW_WORLD
