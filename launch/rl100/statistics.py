"""Uncertainty of measured figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

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


def seeds_interval(successes: Sequence[int], trials: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the success rate over training seeds.

    Episodes of one policy tell nothing of the next seed's policy. So the interval is the one of
    the seeds' rates as samples (Student's t, clipped to [0, 1]), and never narrower than Wilson's
    over all episodes; with one seed it is Wilson's, which is about that one policy.

    Raises:
        ValueError: no seeds, or successes that do not fit the trials.
    """
    low, high = wilson_interval(sum(successes), sum(trials))
    rates = np.asarray(successes, dtype=np.float64) / np.asarray(trials, dtype=np.float64)
    if len(rates) > 1:
        error = float(rates.std(ddof=1)) / math.sqrt(len(rates))
        half = float(student_t.ppf(0.975, len(rates) - 1)) * error
        centre = float(rates.mean())
        low, high = min(low, max(centre - half, 0.0)), max(high, min(centre + half, 1.0))
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


def quantile_interval(
    samples: Sequence[float], fraction: float, z: float = Z_95
) -> tuple[float, float]:
    """Interval of a quantile from order statistics, default 95 %: no shape is assumed.

    Where the samples are too few for the upper end (p99.9 of a thousand), it is the largest one.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("a quantile needs at least one sample")
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    last = len(ordered) - 1
    half = z * math.sqrt(len(ordered) * fraction * (1 - fraction))
    low = math.floor(len(ordered) * fraction - half)
    high = math.ceil(len(ordered) * fraction + half)
    return float(ordered[min(max(low, 0), last)]), float(ordered[min(max(high, 0), last)])


def ratio_interval(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the ratio of two medians.

    Raises:
        ValueError: no samples on a side.
    """
    above, below = (np.asarray(side, dtype=np.float64) for side in (numerator, denominator))
    if not above.size or not below.size:
        raise ValueError("a ratio needs samples on both sides")
    rng = np.random.default_rng(seed)

    def medians(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(rng.choice(values, size=(resamples, values.size)), axis=1))

    tail = 100 * (1 - level) / 2
    low, high = np.percentile(medians(above) / medians(below), [tail, 100 - tail])
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
