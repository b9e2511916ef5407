"""Percentiles of what was measured last, cheap enough for every control tick. No rclpy."""

from __future__ import annotations

import numpy as np


class Window:
    """The last ``size`` values; adding one costs a store. One thread adds, others may read."""

    def __init__(self, size: int = 1000) -> None:
        self._values = np.zeros(size)
        self._count = 0
        self.largest = 0.0

    def __len__(self) -> int:
        return min(self._count, len(self._values))

    def add(self, value: float) -> None:
        """Add a value; the oldest one goes."""
        self._values[self._count % len(self._values)] = value
        self._count += 1
        self.largest = max(self.largest, value)

    def clear(self) -> None:
        """Forget everything."""
        self._count, self.largest = 0, 0.0

    def percentiles(self, *q: float) -> tuple[float, ...]:
        """Percentiles ``q`` (0 to 100) of the values that are held; zeros when there are none."""
        count = len(self)
        if not count:
            return (0.0,) * len(q)
        return tuple(float(value) for value in np.percentile(self._values[:count], q))
