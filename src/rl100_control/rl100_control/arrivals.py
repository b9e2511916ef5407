"""Where in the control period the policy's chunks arrive, so that ticks can follow closely.

A tick that comes just before a chunk executes the chunk's first action a whole period later than
it could. So the gateway lets its ticks come right after the time at which most chunks are there.
"""

from __future__ import annotations

from collections import deque

import numpy as np

EVERY = 10  # arrivals: looking at all of them takes as long as a tick
WINDOW = 100
LATEST = 95  # percentile of the arrivals that a tick waits for
MARGIN_NS = 100_000


class Arrivals:
    """Arrival times of chunks that are due when they come.

    Args:
        period_ns: control period.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._times: deque[int] = deque(maxlen=WINDOW)
        self._count = 0

    def add(self, arrival_ns: int) -> int | None:
        """Note an arrival, steady time.

        Returns:
            At each tenth: a time (ns, steady; plus any number of periods) at which nearly all
            chunks are there. None at the others, and when chunks come at any time of the period, so
            that no time is better than another.
        """
        self._times.append(arrival_ns)
        self._count += 1
        if self._count % EVERY:
            return None
        times = np.array(self._times, dtype=np.int64) - arrival_ns
        angles = times % self._period_ns * (2.0 * np.pi / self._period_ns)
        centre = float(np.angle(np.exp(1j * angles).mean())) * self._period_ns / (2.0 * np.pi)
        half = self._period_ns / 2.0
        phases = (times - centre + half) % self._period_ns - half
        early, late = np.percentile(phases, [100 - LATEST, LATEST])
        if late - early > half:
            return None
        return arrival_ns + round(centre + float(late)) + MARGIN_NS
