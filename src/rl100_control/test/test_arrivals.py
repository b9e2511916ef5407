"""Ticks follow the chunks: the point that is asked for lies behind most arrivals, wherever in the
period they come, a due tick waits a little for the others, and arrivals without a pattern ask for
nothing."""

from __future__ import annotations

import threading
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rl100_control.arrivals import EVERY, LONGEST_WAIT, MARGIN_NS, Arrivals, NextChunk

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
    after = behind - MARGIN_NS + 1
    if every == 1:
        assert 0.35 * jitter <= after <= 0.85 * jitter + 1
        assert arrivals.patience_ns == LONGEST_WAIT * PERIOD
    else:  # a tick between two chunks has nothing to wait for
        assert 0.8 * jitter <= after <= jitter + 1
        assert arrivals.patience_ns == 0


def test_arrivals_at_any_time_ask_for_nothing() -> None:
    rng, arrivals = np.random.default_rng(0), Arrivals(PERIOD)
    points = [arrivals.add(int(t)) for t in np.cumsum(rng.integers(0, 10 * PERIOD, 100))]
    assert points[-1] is None
    assert arrivals.patience_ns == 0


def test_a_wait_ends_with_the_chunk_and_is_not_repeated_in_vain() -> None:
    second = 1_000_000_000
    lock = threading.RLock()
    chunk = NextChunk(lock, 10 * second)

    def arrive() -> None:
        with lock:
            chunk.came(time.monotonic_ns())

    def waited(due_ns: int, patience_ns: int) -> float:
        begun = time.monotonic_ns()
        chunk.wait(due_ns, patience_ns)
        return (time.monotonic_ns() - begun) / second

    now = time.monotonic_ns()
    with lock:
        assert waited(now, 60 * second) < 30.0  # nothing ever came: nothing is about to
        chunk.came(now - second)
        assert waited(now, 60 * second) < 30.0  # it is there already
        chunk.came(now - 9 * second)  # that of the tick before, and late
        threading.Timer(0.05, arrive).start()
        assert 0.04 < waited(now, 60 * second) < 30.0  # the wait lets the lock go
        chunk.came(now - 9 * second)
        assert 0.04 < waited(now, time.monotonic_ns() - now + second // 20) < 30.0  # in vain
        assert waited(now + 10 * second, 60 * second) < 30.0
