"""Intervals of measured figures, against published and independent values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from rl100.statistics import (
    bootstrap_interval,
    quantile_interval,
    ratio_interval,
    seeds_interval,
    spread,
    wilson_interval,
)


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


def test_seeds_that_differ_widen_the_interval() -> None:
    # Equal seeds: nothing but the episodes' noise.
    assert seeds_interval([50, 50, 50], [100, 100, 100]) == wilson_interval(150, 300)
    assert seeds_interval([40], [100]) == wilson_interval(40, 100)
    rates = [0.5, 0.6, 0.7]
    low, high = seeds_interval([50, 60, 70], [100, 100, 100])
    expected = t.interval(0.95, 2, loc=0.6, scale=np.std(rates, ddof=1) / np.sqrt(3))
    assert (low, high) == pytest.approx(expected)
    assert seeds_interval([0, 100], [100, 100]) == (0.0, 1.0)


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


def test_a_quantile_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    for fraction, truth in ((0.5, 0.0), (0.99, 2.326348)):
        intervals = [
            quantile_interval(rng.normal(size=1000).tolist(), fraction) for _ in range(600)
        ]
        held = np.mean([low <= truth <= high for low, high in intervals])
        assert 0.92 < held < 0.99


def test_a_quantile_interval_ends_at_the_largest_sample() -> None:
    assert quantile_interval([3.0, 1.0, 2.0], 0.999)[1] == 3.0
    assert quantile_interval([4.0], 0.5) == (4.0, 4.0)
    with pytest.raises(ValueError, match="at least one sample"):
        quantile_interval([], 0.5)


def test_the_ratio_of_medians_lies_in_its_interval() -> None:
    rng = np.random.default_rng(3)
    slow, fast = rng.normal(30.0, 2.0, 60), rng.normal(2.0, 0.2, 300)
    low, high = ratio_interval(slow.tolist(), fast.tolist())
    assert low < 15.0 < high and high - low < 1.5
    assert ratio_interval([6.0], [2.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="both sides"):
        ratio_interval([], [1.0])
