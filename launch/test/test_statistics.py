"""Intervals of measured figures, against published and independent values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rl100.statistics import bootstrap_interval, spread, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3 (score without correction).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_published_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_matches_scipy_and_holds_the_proportion(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1


@pytest.mark.parametrize("case", [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(*case)


def test_bootstrap_is_near_the_normal_interval_of_a_large_sample() -> None:
    samples = np.random.default_rng(1).normal(10.0, 2.0, 400)
    low, high = bootstrap_interval(samples.tolist())
    half = 1.96 * samples.std(ddof=1) / 20
    assert low == pytest.approx(samples.mean() - half, abs=0.05)
    assert high == pytest.approx(samples.mean() + half, abs=0.05)


def test_bootstrap_repeats_itself_and_refuses_bad_samples() -> None:
    assert bootstrap_interval([1, 2, 5]) == bootstrap_interval([1, 2, 5])
    assert bootstrap_interval([3.0]) == (3.0, 3.0)
    for bad in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="sample"):
            bootstrap_interval(bad)


def test_spread_is_the_middle_ninety_per_cent() -> None:
    assert spread(list(range(101))) == (5.0, 95.0)
