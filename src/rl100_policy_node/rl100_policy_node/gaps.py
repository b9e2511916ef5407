"""Observations that could not be assembled: a problem only when that lasts. No ROS in here."""

from __future__ import annotations

import time
from collections.abc import Callable

# When streams begin and end some frames lack something, and nothing is wrong.
LASTS_S = 1.0


class Gaps:
    """Gives the sentence about a gap when there were gaps for a second. From any thread.

    Args:
        monotonic: time that never jumps, s.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # The first sentence and its time, and the time of the last one.
        self._seen = ("", float("-inf"), float("-inf"))

    def note(self, sentence: str) -> None:
        """An observation could not be assembled."""
        now, (first, since, last) = self._monotonic(), self._seen
        # The first sentence stays: one that changes with each frame can't be read.
        self._seen = (sentence, now, now) if now - last > LASTS_S else (first, since, now)

    def __str__(self) -> str:
        sentence, since, last = self._seen
        now = self._monotonic()
        return sentence if now - last <= LASTS_S <= now - since else ""
