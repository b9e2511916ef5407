"""Planned actions of one publisher, spliced by time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.task import NANOSECONDS

# A chunk that starts later than this is a clock that is wrong, not a plan.
MAX_AHEAD_NS = 2 * NANOSECONDS


@dataclass(frozen=True)
class Planned:
    """One action that is due at ``stamp_ns``; ``index`` is its place in ``chunk``."""

    stamp_ns: int
    action: NDArray[np.float32]
    chunk: Chunk
    index: int


class Plan:
    """What one publisher wants done, and when.

    A newer chunk replaces what older ones planned from its first stamp on. Actions are handed out
    once, at the tick that is nearest to their stamp; those that are late are dropped.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._planned: deque[Planned] = deque()
        self._last: Chunk | None = None
        self._not_until_ns = -1
        self.dropped_chunks = 0
        self.dropped_actions = 0

    def clear(self) -> None:
        """Forget the plan; what was learned of the publisher stays."""
        self._planned.clear()

    def drop_observed_until(self, stamp_ns: int) -> None:
        """Forget actions that were planned on observations up to ``stamp_ns``, and refuse more."""
        self._not_until_ns = stamp_ns
        self._planned = deque(p for p in self._planned if p.chunk.observation_ns > stamp_ns)

    def forget(self) -> None:
        """Forget the plan and the publisher: the clock of the stamps started again."""
        self._planned.clear()
        self._last = None
        self._not_until_ns = -1

    def _refusal(self, chunk: Chunk, now_ns: int) -> str:
        where = f"chunk {chunk.sequence} of '{chunk.source}'"
        if chunk.stamps_ns[-1] < now_ns - self._period_ns or chunk.expires_ns < now_ns:
            return f"{where} is too late by {(now_ns - int(chunk.stamps_ns[-1])) * 1e-9:.2f} s"
        if chunk.stamps_ns[0] > now_ns + MAX_AHEAD_NS:
            return (
                f"{where} starts {(int(chunk.stamps_ns[0]) - now_ns) * 1e-9:.1f} s in the future: "
                "are the clocks in step?"
            )
        if chunk.observation_ns <= self._not_until_ns:
            return f"{where} was planned before the robot's feedback made a jump in time"
        last = self._last
        if last is None:
            return ""
        if chunk.observation_ns <= last.observation_ns and last.expires_ns >= now_ns:
            return f"{where} is not newer than chunk {last.sequence}"
        if chunk.sequence <= last.sequence and last.expires_ns >= now_ns:
            return (
                f"{where} came after chunk {last.sequence} of '{last.source}', which is still "
                "valid: are two publishers running?"
            )
        return ""

    def add(self, chunk: Chunk, now_ns: int) -> str:
        """Take a checked chunk over; returns why not, or an empty string.

        A sequence that starts again (a restarted publisher) is accepted once the last chunk of
        the old one has expired.
        """
        refusal = self._refusal(chunk, now_ns)
        if refusal:
            self.dropped_chunks += 1
            return refusal
        while self._planned and self._planned[-1].stamp_ns >= chunk.stamps_ns[0]:
            self._planned.pop()
        for index, (stamp, action) in enumerate(zip(chunk.stamps_ns, chunk.actions, strict=True)):
            self._planned.append(Planned(int(stamp), action, chunk, index))
        self._last = chunk
        return ""

    def covers(self, stamp_ns: int) -> bool:
        """Whether an action is due at the tick ``stamp_ns``."""
        slack = self._period_ns // 2
        return any(abs(planned.stamp_ns - stamp_ns) <= slack for planned in self._planned)

    def due(self, now_ns: int) -> Planned | None:
        """The action of the tick at ``now_ns``, or None; earlier ones are dropped."""
        chosen: Planned | None = None
        while self._planned and self._planned[0].stamp_ns <= now_ns + self._period_ns // 2:
            if chosen is not None:
                self.dropped_actions += 1
            chosen = self._planned.popleft()
        if chosen is None:
            return None
        if chosen.stamp_ns < now_ns - self._period_ns or chosen.chunk.expires_ns < now_ns:
            self.dropped_actions += 1
            return None
        return chosen
