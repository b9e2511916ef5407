"""The dead-man switch: motion only while a person holds it. No ROS in here."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadman:
    """Whether the switch is held.

    Its silence counts as a release, so a device that is unplugged and a process that dies release
    it too. Time is steady: no jump of the wall clock holds the switch.

    Args:
        timeout_s: silence that counts as a release.
        clock: steady time, s.

    Attributes:
        was_held: whether it was held since this was last set to False.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._held = self.was_held = False
        self._heard = float("-inf")

    def receive(self, held: bool) -> None:
        """Take a message of the switch."""
        self._held, self._heard = held, self._clock()
        self.was_held |= held

    def problem(self) -> str:
        """Why nothing may move, or an empty string."""
        if self._heard == float("-inf"):
            return "nobody holds the dead-man switch: none was heard on /rl100/deadman"
        if self._clock() - self._heard > self._timeout_s:
            return f"the dead-man switch has been silent for more than {self._timeout_s} s"
        return "" if self._held else "the dead-man switch is not held"
