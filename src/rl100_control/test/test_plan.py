"""A chunk that comes too late for its tick leaves no gap, also where chunks have two actions only
and arrive late in the period: the robot must not hold at each little delay of the policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl100_control.plan import Plan
from rl100_control.testing import DT, T0, chunk

STEP = [0.01, 0.0]


@given(
    delay=st.integers(1, DT - 1),
    late=st.lists(st.booleans(), min_size=1, max_size=40),
    jitter=st.data(),
)
def test_a_chunk_of_two_in_each_period_may_miss_its_tick(
    delay: int, late: list[bool], jitter: st.DataObject
) -> None:
    plan = Plan(DT, lock_phase=True)
    coming = [chunk(1 + i, T0 + i * DT, [STEP] * 2) for i in range(len(late) + 1)]
    most = min(delay, DT - delay) // 4
    waits = False
    for i, new in enumerate(coming):
        now = T0 + i * DT + delay + jitter.draw(st.integers(-most, most))
        if waits:
            assert plan.add(coming[i - 1], now) == ""
        waits = i > 0 and late[i - 1]
        if not waits:
            assert plan.add(new, now) == ""
        planned = plan.due(now)
        assert planned is not None
        # The action for this very period, from whichever observation.
        assert planned.stamp_ns == T0 + i * DT


@pytest.mark.parametrize("delay", [DT // 4, DT * 3 // 4])
def test_single_actions_that_come_faster_than_ticks_are_not_saved_up(delay: int) -> None:
    """Teleoperation: the newest one counts."""
    plan = Plan(DT, lock_phase=True)
    for i in range(20):
        plan.add(chunk(1 + i, T0 + i * DT // 2, [STEP]), T0 + i * DT // 2)
        if i % 2:
            planned = plan.due(T0 + i * DT // 2 + delay // 2)
            assert planned is not None and planned.chunk.sequence == 1 + i
