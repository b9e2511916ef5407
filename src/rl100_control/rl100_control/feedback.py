"""Where the robot is, as far as it can be believed, and whether it follows. No ROS in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.tick import FloatArray

# Feedback that was away for longer says nothing about what happened meanwhile.
GAP_NS = NANOSECONDS // 2
# So many measurements in a row, over a control period, make a place to which no robot can have
# moved the place where it is: a driver that starts, or a sensor that fails, sends one or two.
CONFIRMATIONS = 3
# A robot that does not follow gets time; so many times in so long, and something is in its way.
BLOCKED_NS, BLOCKED_WITHIN_NS, BLOCKED_MOST = NANOSECONDS, 30 * NANOSECONDS, 3


class News(Enum):
    """What a measurement says beside the one before."""

    NEXT = auto()  # the robot went on from there
    ELSEWHERE = auto()  # it is somewhere else, or this is the first
    GAP = auto()  # the world went on without us, or is another one (a reset)
    RESTARTED = auto()  # the clock (a simulator's) started again


class _Chain(NamedTuple):
    """Measurements at a place that is not believed yet: of the first and of the last one."""

    since_ns: int
    number: int
    stamp_ns: int
    position: FloatArray


class Feedback:
    """The newest measurement that can be believed. Not thread-safe.

    Args:
        task: the contract.
        lockstep: the world is simulated: a leap is a reset, and believed at once.

    Attributes:
        position: float64 (d,), m or rad; None before the first.
        stamp_ns: of that, ns.
        doubt: why the newest measurement is not believed; empty when it is.
    """

    def __init__(self, task: Task, *, lockstep: bool) -> None:
        period_ns = task.control.period_ns
        limit = np.asarray(task.limits.velocity)
        self._leap = 3.0 * limit * period_ns / NANOSECONDS + task.limits.max_tracking_error / 2.0
        self._period_ns, self._lockstep = period_ns, lockstep
        self._chain: _Chain | None = None
        self.position: FloatArray | None = None
        self.stamp_ns = 0
        self.doubt = ""

    def take(self, stamp_ns: int, position: FloatArray) -> News | str:
        """Take a measured position (d,) over; why not, in one sentence, or what it says."""
        if position.shape != self._leap.shape or not np.isfinite(position).all():
            return "the robot's feedback is not finite"
        known, ahead_ns, news = self.position, stamp_ns - self.stamp_ns, News.NEXT
        far = known is None or self._far(position, known)
        if known is None:
            news = News.ELSEWHERE
        elif ahead_ns > GAP_NS:
            news = News.GAP
        elif ahead_ns < -GAP_NS:
            # Not a message that overtook another.
            news = News.RESTARTED
        elif ahead_ns <= 0:
            return "the robot's feedback is not newer than what is known"
        elif far:
            news = News.ELSEWHERE
        if far and not self._lockstep and not self._confirmed(stamp_ns, position):
            self.doubt = (
                "the robot's position is not certain before some measurements agree"
                if known is None
                else f"the robot's feedback leapt by {np.abs(position - known).max():.3f} from one "
                "measurement to the next: it is believed when it stays there"
            )
            return self.doubt
        self.position, self.stamp_ns = position, stamp_ns
        self.doubt, self._chain = "", None
        return news

    def _far(self, position: FloatArray, known: FloatArray) -> bool:
        return bool((np.abs(position - known) > self._leap).any())

    def _confirmed(self, stamp_ns: int, position: FloatArray) -> bool:
        """Whether enough measurements in a row are where this one is."""
        chain = self._chain
        restarted = chain is not None and chain.stamp_ns - stamp_ns > GAP_NS
        if chain is None or restarted or self._far(position, chain.position):
            chain = _Chain(stamp_ns, 1, stamp_ns, position)
        elif stamp_ns > chain.stamp_ns:
            chain = _Chain(chain.since_ns, chain.number + 1, stamp_ns, position)
        self._chain = chain
        return chain.number >= CONFIRMATIONS and stamp_ns - chain.since_ns >= self._period_ns


class Blocks:
    """When the robot did not follow its target; again and again it would be pushed for ever.

    Args:
        steady_ns: time that no jump of the wall clock touches, ns.
    """

    def __init__(self, steady_ns: Callable[[], int]) -> None:
        self._steady_ns = steady_ns
        self._times: deque[int] = deque(maxlen=BLOCKED_MOST)

    def add(self) -> str:
        """It did not follow just now; why that is a stop, or an empty string."""
        now_ns = self._steady_ns()
        self._times.append(now_ns)
        if len(self._times) < BLOCKED_MOST or now_ns - self._times[0] > BLOCKED_WITHIN_NS:
            return ""
        return (
            f"the robot did not follow its target {BLOCKED_MOST} times within "
            f"{BLOCKED_WITHIN_NS // NANOSECONDS} s: is it blocked, or in a protective stop?"
        )

    def waiting(self) -> bool:
        """Whether it gets time to come free."""
        return bool(self._times) and self._steady_ns() - self._times[-1] < BLOCKED_NS

    def forget(self) -> None:
        """A person has looked at it."""
        self._times.clear()
