"""Planned actions of one publisher, spliced by time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.task import NANOSECONDS

# A chunk that starts later than this is a clock that is wrong, not a plan.
MAX_AHEAD_NS = 2 * NANOSECONDS


@dataclass(frozen=True)
class Planned:
    """One action that is due at ``stamp_ns``; ``index`` is its place in ``chunk``.

    ``action`` is the one of the chunk, or (``blend``) a mean of it and the plan before.
    """

    stamp_ns: int
    action: NDArray[np.float32]
    chunk: Chunk
    index: int


def _same(chunk: Chunk, other: Chunk) -> bool:
    """Whether one is a copy of the other."""
    return (
        chunk.sequence == other.sequence
        and chunk.policy_version == other.policy_version
        and np.array_equal(chunk.actions, other.actions)
    )


class Plan:
    """What one publisher wants done, and when.

    A newer chunk replaces what older ones planned from its first stamp on. Actions are handed out
    once, at the tick that is nearest to their stamp; those that are late are dropped. Only the last
    but one of a chunk may be late by up to a period: then its last one is left for the next tick,
    and a successor that comes a little too late leaves no gap.

    Args:
        period_ns: control period.
        lock_phase: real time: a chunk's stamps need not fall on ticks. Once its first action is
            executed the others follow tick by tick, whichever way the clocks round.
        blend: where a newer chunk overlaps the plan, go over from one to the other evenly. For
            absolute actions: their difference would be a jump. Steps (delta actions) cannot jump,
            and a mean of two steps is neither publisher's.
        on_restart: called with the newest chunk of a publisher that fell silent and the first one
            of the publisher that has taken its place, before that is taken over.
    """

    def __init__(
        self,
        period_ns: int,
        *,
        lock_phase: bool = False,
        blend: bool = False,
        on_restart: Callable[[Chunk, Chunk], object] = lambda old, new: None,
    ) -> None:
        self._period_ns = period_ns
        self._lock_phase = lock_phase
        self._phase: tuple[Chunk | None, int] = (None, 0)
        self._blend, self._on_restart = blend, on_restart
        self._planned: deque[Planned] = deque()
        self._last: Chunk | None = None
        self._not_until_ns = -1
        self._rival_ns: int | None = None
        self._newest: Chunk | None = None  # as ``_last``, but not forgotten
        self._rival_since = False  # since that one was taken over
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
        self._last = self._rival_ns = None
        self._not_until_ns = -1

    def contested(self, now_ns: int) -> bool:
        """Whether another publisher's chunk came within the last second."""
        return self._rival_ns is not None and abs(now_ns - self._rival_ns) < NANOSECONDS

    def _note_rival(self, now_ns: int) -> None:
        self._rival_ns, self._rival_since = now_ns, True

    def _notice_restart(self, chunk: Chunk, now_ns: int) -> None:
        """Before ``chunk`` is taken over: whether it is the first of another publisher.

        One publisher never counts back, also not when the clock of the stamps does. One that was
        refused as long as the other's plan was valid may have counted past it meanwhile.
        """
        newest, rival = self._newest, self._rival_since
        self._newest, self._rival_since = chunk, False
        if newest is None:
            return
        silent = self._last is None or self._last.expires_ns < now_ns
        if chunk.sequence <= newest.sequence or (silent and rival):
            self._on_restart(newest, chunk)

    def _refusal(self, chunk: Chunk, now_ns: int) -> str:
        where = f"chunk {chunk.sequence} of '{chunk.source}'"
        if chunk.stamps_ns[-1] < now_ns - self._period_ns:
            return f"{where} is too late by {(now_ns - int(chunk.stamps_ns[-1])) * 1e-9:.2f} s"
        if chunk.expires_ns < now_ns:
            return f"{where} expired {(now_ns - chunk.expires_ns) * 1e-9:.2f} s ago"
        if chunk.stamps_ns[0] > now_ns + MAX_AHEAD_NS:
            return (
                f"{where} starts {(int(chunk.stamps_ns[0]) - now_ns) * 1e-9:.1f} s in the future: "
                "are the clocks in step?"
            )
        if chunk.observation_ns <= self._not_until_ns:
            return f"{where} was planned before the robot's feedback made a jump in time"
        last = self._last
        if last is None or last.expires_ns < now_ns:
            return ""
        if chunk.observation_ns == last.observation_ns and not _same(chunk, last):
            # One publisher decides once on what it sees.
            self._note_rival(now_ns)
            return (
                f"{where} was planned on the same observation as chunk {last.sequence} of "
                f"'{last.source}': are two publishers running?"
            )
        if chunk.observation_ns <= last.observation_ns:
            return f"{where} is not newer than chunk {last.sequence}"
        if chunk.sequence <= last.sequence:
            # One publisher never counts back while it sees newer things.
            self._note_rival(now_ns)
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
        self._notice_restart(chunk, now_ns)
        # Where nobody asks what is due (idle, stopped), plans must not pile up.
        while self._planned and self._planned[0].chunk.expires_ns < now_ns:
            self._planned.popleft()
        replaced: list[Planned] = []
        while self._planned and self._planned[-1].stamp_ns >= chunk.stamps_ns[0]:
            replaced.append(self._planned.pop())
        actions = chunk.actions
        if self._blend and replaced:
            actions = self._blended(chunk, replaced[::-1], now_ns)
        for index, (stamp, action) in enumerate(zip(chunk.stamps_ns, actions, strict=True)):
            self._planned.append(Planned(int(stamp), action, chunk, index))
        self._last = chunk
        return ""

    def _blended(self, chunk: Chunk, replaced: list[Planned], now_ns: int) -> NDArray[np.float32]:
        """Actions (n, d) of ``chunk`` that leave the replaced plan evenly, and end as they were."""
        pairs = []
        for index, stamp in enumerate(chunk.stamps_ns.tolist()):
            old = min(replaced, key=lambda planned: abs(planned.stamp_ns - stamp))
            if stamp >= now_ns and abs(old.stamp_ns - stamp) <= self._period_ns // 2:
                pairs.append((index, old.action))
        actions = chunk.actions.copy()
        for place, (index, old_action) in enumerate(pairs, start=1):
            weight = np.float32(place / (len(pairs) + 1))
            actions[index] = old_action + weight * (actions[index] - old_action)
        return actions

    def nothing_due(self, now_ns: int) -> str:
        """Why there is no action, said so that it changes only when the reason does."""
        if self._last is None:
            return "no action is due: the policy has planned nothing yet"
        if self._last.stamps_ns[0] > now_ns:
            return "no action is due: the policy's plan begins later"
        return "no action is due: the policy's last plan has run out"

    def covers(self, stamp_ns: int) -> bool:
        """Whether an action is due at the tick ``stamp_ns``."""
        slack = self._period_ns // 2
        return any(abs(planned.stamp_ns - stamp_ns) <= slack for planned in self._planned)

    def due(self, now_ns: int) -> Planned | None:
        """The action of the tick at ``now_ns``, or None; earlier ones are dropped."""
        chosen: Planned | None = None
        while self._planned and self._time(self._planned[0]) <= now_ns + self._period_ns // 2:
            if chosen is not None:
                if self._is_spare(chosen, now_ns):
                    break
                self.dropped_actions += 1
            chosen = self._planned.popleft()
        if chosen is None:
            return None
        if self._time(chosen) < now_ns - self._period_ns or chosen.chunk.expires_ns < now_ns:
            self.dropped_actions += 1
            return None
        if self._lock_phase and chosen.chunk is not self._phase[0]:
            self._phase = chosen.chunk, chosen.stamp_ns - now_ns
        return chosen

    def _is_spare(self, chosen: Planned, now_ns: int) -> bool:
        """Whether what follows an action is all that is left, and the action not too late."""
        last = len(self._planned) == 1 and self._planned[0].chunk is chosen.chunk
        return last and self._time(chosen) > now_ns - self._period_ns

    def _time(self, planned: Planned) -> int:
        """When an action is due, in the phase of the ticks, ns."""
        chunk, offset_ns = self._phase
        return planned.stamp_ns - (offset_ns if planned.chunk is chunk else 0)
