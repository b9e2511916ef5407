"""Where in the control period the policy's chunks arrive, so that ticks can follow closely.

A tick that comes just before a chunk executes the chunk's first action a whole period later than
it could. So the gateway lets its ticks come right after the time at which more than half of the
chunks are there, and a tick waits a little for one that is not.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

EVERY = 10  # arrivals: looking at all of them takes as long as a tick
WINDOW = 100
# Percentile of the arrivals that are there when a tick is due. A tick waits for a chunk in each
# period, no longer than this part of one, so that commands stay even; not for a chunk of many.
MOST, NEARLY_ALL = 60, 95
LONGEST_WAIT = 0.2
MARGIN_NS = 50_000


class Arrivals:
    """Arrival times of chunks that are due when they come.

    Args:
        period_ns: control period.

    Attributes:
        patience_ns: how long a due tick should wait for a chunk; 0 unless there is one in nearly
            every period.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._times: deque[int] = deque(maxlen=WINDOW)
        self._count = 0
        self.patience_ns = 0

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
        early, most, late = np.percentile(phases, [100 - NEARLY_ALL, MOST, NEARLY_ALL])
        if late - early > half:
            self.patience_ns = 0
            return None
        often = float(np.median(np.diff(times))) < 1.5 * self._period_ns
        self.patience_ns = round(LONGEST_WAIT * self._period_ns) if often else 0
        return arrival_ns + round(centre + float(most if often else late)) + MARGIN_NS


class NextChunk:
    """Lets a due tick wait for the chunk that is about to come.

    Args:
        lock: that of whoever ticks and takes chunks; both methods want it held. A wait lets it go.
        period_ns: control period.
    """

    def __init__(self, lock: threading.RLock, period_ns: int) -> None:
        self._arrival = threading.Condition(lock)
        self._period_ns = period_ns
        self._latest_ns = -1

    def came(self, arrival_ns: int) -> None:
        """A chunk is there, since then (steady)."""
        self._latest_ns = arrival_ns
        self._arrival.notify()

    def wait(self, due_ns: int, patience_ns: int) -> None:
        """Until the chunk of the tick that is due (steady) is there, or the patience is over.

        One that came in the half period before belongs to this tick, an older one to the tick
        before; where that one had none, none is about to come.
        """
        if self._latest_ns < due_ns - 3 * self._period_ns // 2:
            return
        newest_ns = due_ns - self._period_ns // 2
        left_s = (due_ns + patience_ns - time.monotonic_ns()) * 1e-9
        self._arrival.wait_for(lambda: self._latest_ns > newest_ns, left_s)
