"""Which messages arrive, and by which clock they are stamped. No ROS in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rl100_contracts.task import NANOSECONDS, Task

JUMP_NS = NANOSECONDS // 10
CLOCK_LIMIT_S = 0.5
FRAMES = 50


class Supply:
    """Arrival times of the observed streams, by a clock that never jumps.

    Args:
        task: the contract.
        wall: clock of the stamps, ns.
        monotonic: clock that never jumps, ns.
    """

    def __init__(self, task: Task, wall: Callable[[], int], monotonic: Callable[[], int]) -> None:
        self._task, self._wall, self._monotonic = task, wall, monotonic
        self._limit_s = task.safety.observation_timeout_s
        self._newest: dict[str, int] = {}
        self._arrived: dict[str, int] = {}
        self._complete_at: int | None = None
        self._offsets: deque[int] = deque(maxlen=FRAMES)
        self._clock_ns = self._clock()
        self.clock_jumps = 0

    def _clock(self) -> int:
        """Wall minus monotonic time, ns. An interruption between the two makes it smaller."""
        return max(self._wall() - self._monotonic() for _ in range(3))

    def clock_jumped(self) -> bool:
        """Whether the system clock was set since the last call."""
        before, self._clock_ns = self._clock_ns, self._clock()
        jumped = abs(self._clock_ns - before) > JUMP_NS
        self.clock_jumps += jumped
        return jumped

    def forget(self) -> None:
        """Stamps from before are of another time base."""
        self._newest.clear()
        self._offsets.clear()

    def newest_ns(self, stream: str) -> int | None:
        """Stamp of the last message of a stream, ns."""
        return self._newest.get(stream)

    def arrived(self, stream: str, stamp_ns: int) -> None:
        """A message was taken."""
        self._newest[stream] = stamp_ns
        self._arrived[stream] = self._monotonic()

    def complete(self, frame_ns: int) -> int:
        """A frame is complete; returns the time, ns of the monotonic clock."""
        self._complete_at = self._monotonic()
        self._offsets.append(self._complete_at - frame_ns)
        return self._complete_at

    def expected_ns(self, frame_ns: int) -> int:
        """When a future frame should be complete, ns of the monotonic clock.

        The least delayed of the last frames sets the grid, so that a late frame doesn't move it.
        """
        return frame_ns + min(self._offsets, default=self._monotonic() - frame_ns)

    def _age_s(self, at: int | None) -> float:
        return float("inf") if at is None else (self._monotonic() - at) * 1e-9

    def dry(self) -> bool:
        """Whether no frame was complete for longer than the task's observation time-out."""
        return self._age_s(self._complete_at) > self._limit_s

    def stopped(self) -> bool:
        """Whether frames were complete once and are not any more."""
        return self._complete_at is not None and self.dry()

    def waiting_for(self) -> str:
        """One sentence on what does not arrive, or with wrong stamps; empty when all is well."""
        if self.dry():
            silent = {
                name: self._age_s(at)
                for name, at in self._arrived.items()
                if self._age_s(at) > self._limit_s
            }
            if silent:
                topic = self._task.streams[max(silent, key=lambda name: silent[name])].topic
                return f"no message on {topic} for more than {self._limit_s} s"
            oldest = min(self._newest, key=lambda name: self._newest[name], default="")
            if not oldest:
                return f"no complete observation for more than {self._limit_s} s"
            return (
                f"no complete observation for more than {self._limit_s} s: the stamps of "
                f"{self._task.streams[oldest].topic} are behind those of the others"
            )
        if not self._newest:
            return ""
        ahead = {name: (ns - self._wall()) * 1e-9 for name, ns in self._newest.items()}
        worst = max(ahead, key=lambda name: abs(ahead[name]))
        limit = max(self._limit_s, CLOCK_LIMIT_S)
        if abs(ahead[worst]) <= limit:
            return ""
        side = "after" if ahead[worst] > 0 else "before"
        return (
            f"messages on {self._task.streams[worst].topic} are stamped more than {limit} s {side} "
            "their arrival: set the clocks of the machines alike"
        )
