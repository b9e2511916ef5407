"""Ticks follow the chunks: the point that is asked for lies behind nearly all arrivals, wherever in
the period they come, and arrivals without a pattern ask for nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rl100_control.arrivals import EVERY, MARGIN_NS, Arrivals

PERIOD = 10_000_000


@given(
    phase=st.integers(0, PERIOD - 1),
    jitter=st.integers(1, 2_000_000),
    every=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_point_lies_just_behind_the_arrivals(
    phase: int, jitter: int, every: int, seed: int
) -> None:
    rng, arrivals = np.random.default_rng(seed), Arrivals(PERIOD)
    point = None
    for i in range(100):
        delay = int(rng.integers(0, jitter))
        point = arrivals.add(10**12 + i * every * PERIOD + phase + delay)
        assert (point is None) == bool((i + 1) % EVERY)
    assert point is not None
    behind = (point - phase) % PERIOD  # of the earliest possible arrival
    assert 0.8 * jitter <= behind - MARGIN_NS + 1 <= jitter + 1


def test_arrivals_at_any_time_ask_for_nothing() -> None:
    rng, arrivals = np.random.default_rng(0), Arrivals(PERIOD)
    points = [arrivals.add(int(t)) for t in np.cumsum(rng.integers(0, 10 * PERIOD, 100))]
    assert points[-1] is None
