"""Uncertainty of measured figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Normal quantile of a two-sided 95 % interval.
Z_95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), default 95 %.

    Unlike the normal approximation it stays inside [0, 1] and is usable at 0 and at ``trials``
    successes.

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials is no proportion")
    p = successes / trials
    denominator = 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / denominator
    half = z / denominator * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def bootstrap_interval(
    samples: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``samples``; one sample gives itself twice.

    Raises:
        ValueError: no samples, or one is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("an interval needs at least one sample, and finite ones")
    rng = np.random.default_rng(seed)
    means = rng.choice(values, size=(resamples, values.size)).mean(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """5th and 95th percentile of ``samples``: how far single values lie apart.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("a spread needs at least one sample")
    low, high = np.percentile(np.asarray(samples, dtype=np.float64), [5, 95])
    return float(low), float(high)
