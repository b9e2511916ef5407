"""Whether a node is fast enough for its cameras to make up for images that had to wait.

A process that the scheduler stops for a moment finds several images when it goes on. Where a cloud
takes much less than a camera's period, all of them become clouds and the newest is hardly later. A
node that is too slow must not work off a queue that never ends: it takes the newest images only.
"""

from __future__ import annotations

import statistics
from collections import deque

# A cloud may take this part of a period; of the rest the node catches up.
SHARE = 0.7
# The median of so many clouds counts, so that one slow cloud decides nothing.
CLOUDS = 15
USUAL_RATE_HZ = 30.0


class Pace:
    """Compares the time per cloud with the period of the images. Not thread-safe.

    Args:
        rate_hz: of the images; None: not known, then that of most cameras.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._limit_s = SHARE / (rate_hz or USUAL_RATE_HZ)
        self._times_s: deque[float] = deque(maxlen=CLOUDS)

    def add(self, time_s: float) -> None:
        """Take the time that one cloud took, s."""
        self._times_s.append(time_s)

    @property
    def keeps_up(self) -> bool:
        """Whether images that wait will be worked off; True as long as nothing is known."""
        return not self._times_s or statistics.median(self._times_s) <= self._limit_s
