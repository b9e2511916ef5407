"""Which plans the gateway follows in real time, and how they follow each other.

Pins: two policies at once hold, also on the same frames; duplicates and plans on old observations
are refused; a plan that ends comes to rest within the limits; a chunk whose stamps fall between
ticks is executed whole; a splice of absolute plans is even; whatever plans come, the targets keep
position, velocity, acceleration and jerk.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_control.gateway import Gateway
from rl100_control.plan import Plan
from rl100_control.testing import (
    DT,
    HERE,
    T0,
    absolute_task,
    changed,
    chunk,
    follow,
    gateway,
    give,
)

STEP = [0.01, 0.0]


# --- plans that must not be followed


def test_two_policies_on_the_same_frames_hold() -> None:
    made, turns = gateway(lockstep=False), np.random.default_rng(0)
    ticks = []
    for i in range(30):
        now = T0 + i * DT
        plans = [
            chunk(i + 1, now, [STEP] * 4, policy_version="v1"),
            chunk(i + 1, now, [[-0.01, 0.0]] * 4, policy_version="v2"),
        ]
        for k in turns.permutation(2):
            give(made, plans[k], now)
        ticks.append(follow(made, now))
    assert all(tick.hold and "two policies publish" in tick.reason for tick in ticks)


def test_two_policies_at_once_hold_until_one_is_left() -> None:
    made = gateway(lockstep=False)
    held = []
    for i in range(40):
        now = T0 + i * DT
        give(made, chunk(1000 + i, now, [STEP] * 4), now)
        if 5 <= i < 10:
            refusal = give(made, chunk(i, now + 1, [[-0.01, 0.0]] * 4), now)
            assert "two publishers" in refusal
        tick = follow(made, now)
        held.append(tick.hold)
        assert not tick.hold or "two policies publish" in tick.reason
    assert not any(held[:5]) and all(held[5:29]) and not any(held[30:])


def test_a_duplicate_is_ignored_without_a_hold() -> None:
    made = gateway(lockstep=False)
    plan = chunk(7, T0, [STEP] * 4)
    give(made, plan)
    assert "not newer" in give(made, plan)
    assert not any(follow(made, T0 + i * DT).hold for i in range(4))


def test_a_plan_on_an_old_observation_is_refused() -> None:
    made = gateway(lockstep=False)
    old = T0 - 310_000_000
    refusal = give(made, chunk(1, T0, [STEP], observation_ns=old))
    assert "0.31 s old" in refusal and "observation_timeout_s" in refusal
    assert give(made, chunk(2, T0, [STEP], observation_ns=old + 20_000_000)) == ""


def test_why_nothing_is_due_is_said() -> None:
    made = gateway(lockstep=False)
    assert "planned nothing yet" in follow(made, T0).reason
    give(made, chunk(1, T0 + 3 * DT, [STEP]), T0)
    assert "begins later" in follow(made, T0 + DT).reason
    for i in range(2, 5):
        tick = follow(made, T0 + i * DT)
    assert "has run out" in tick.reason


# --- how plans follow each other


def test_a_plan_that_ends_comes_to_rest_and_a_stop_stands_still() -> None:
    limits = {"acceleration": [3.0, 3.0], "jerk": [60.0, 60.0]}

    def running() -> Gateway:
        made = gateway(lockstep=False, task=changed(limits=limits))
        give(made, chunk(1, T0, [[0.03, 0.0]] * 5))
        for i in range(5):
            last = follow(made, T0 + i * DT)
        assert last.velocity[0] > 0.4
        return made

    made = running()
    ends = [follow(made, T0 + i * DT) for i in range(5, 25)]
    assert all(tick.hold for tick in ends)
    speeds = np.array([tick.velocity[0] for tick in ends])
    assert speeds[0] > 0.3 and abs(speeds[-1]) < 1e-9
    assert (np.diff(speeds) >= -3.0 * 0.05 - 1e-9).all()
    assert ends[0].action[0] > 0.015, "the way to rest is told as it was"

    made = running()
    before = follow(made, T0 + 5 * DT).target
    made.stop("test")
    tick = made.tick(T0 + 5 * DT + 1)
    assert tick is not None and tick.hold and not tick.velocity.any()
    np.testing.assert_array_equal(tick.target, before)


@pytest.mark.parametrize("phase", [0, DT // 4, DT // 2 - 1, DT // 2 + 1, DT - 1])
def test_a_chunk_is_executed_whole_whatever_its_phase_and_the_jitter(phase: int) -> None:
    rng = np.random.default_rng(0)
    plan = Plan(DT, lock_phase=True)
    plan.add(chunk(1, T0 + 2 * DT + phase, [STEP] * 12), T0)
    due = [plan.due(T0 + i * DT + int(rng.integers(-DT // 3, DT // 3))) for i in range(18)]
    indices = [planned.index for planned in due if planned]
    assert indices == list(range(12))
    assert plan.dropped_actions == 0


def steps_over_a_splice(*, blend: bool, overlap: int) -> np.ndarray:
    """Targets of two absolute plans along a line, the second 2 cm to the side of the first."""
    plan, period = Plan(DT, lock_phase=True, blend=blend), 0.01
    line = np.arange(20)[:, None] * [period, 0.0]
    plan.add(chunk(1, T0, line[: 8 + overlap]), T0)
    path = []
    for i in range(16):
        now = T0 + i * DT
        if i == 7:
            plan.add(chunk(2, T0 + 8 * DT, line[8:] + np.array([0.0, 0.02])), now)
        planned = plan.due(now)
        assert planned is not None
        path.append(planned.action)
    return np.array(path)


def test_a_splice_of_absolute_plans_is_even() -> None:
    """The largest jump to the side in one tick, before any limit: what overlaps divides it."""
    jumps = {
        (blend, overlap): np.abs(np.diff(steps_over_a_splice(blend=blend, overlap=overlap)[:, 1]))
        for blend in (False, True)
        for overlap in (0, 4)
    }
    assert jumps[False, 4].max() == pytest.approx(0.02, abs=1e-6)
    assert jumps[True, 0].max() == pytest.approx(0.02, abs=1e-6)  # nothing to blend: limits do it
    assert jumps[True, 4].max() == pytest.approx(0.004, abs=1e-6)
    np.testing.assert_allclose(steps_over_a_splice(blend=True, overlap=4)[-1], [0.15, 0.02])


@pytest.mark.parametrize("space", ["absolute", "delta"])
def test_the_limits_bound_what_a_splice_does_to_the_motion(space: str) -> None:
    """Two plans that contradict each other: speed, acceleration and jerk stay in their limits."""
    limits = {"velocity": [0.5] * 2, "acceleration": [3.0] * 2, "jerk": [60.0] * 2}
    task = absolute_task(**limits) if space == "absolute" else changed(limits=limits)
    made, dt = gateway(lockstep=False, task=task), DT * 1e-9
    path = [HERE] * 3
    for i in range(30):
        now, sign = T0 + i * DT, 1 if i < 14 else -1
        steps = sign * np.arange(1, 6)[:, None] if space == "absolute" else np.full((5, 1), sign)
        if i % 2 == 0:
            give(made, chunk(1 + i, now, path[-1] * (space == "absolute") + steps * [0.02, 0]), now)
        path.append(follow(made, now).target)
    velocity = np.diff(np.array(path), axis=0) / dt
    acceleration = np.diff(velocity, axis=0) / dt
    assert velocity[:, 0].max() > 0.3 and velocity[:, 0].min() < -0.2
    assert np.abs(velocity).max() <= 0.5 + 1e-9
    assert np.abs(acceleration).max() <= 3.0 + 1e-6
    assert np.abs(np.diff(acceleration, axis=0)).max() <= 60.0 * dt + 1e-6


plans = st.tuples(
    st.integers(1, 8),  # ticks until the next plan
    st.integers(-3, 6),  # its start, in half periods from now
    st.lists(st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)), min_size=1, max_size=6),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(plans, max_size=12), st.booleans(), st.floats(0.3, 20.0), st.floats(0.5, 20.0))
def test_whatever_plans_come_the_motion_keeps_all_limits(
    sequence: list[tuple[int, int, list[tuple[float, float]]]],
    absolute: bool,
    acceleration: float,
    per_second: float,
) -> None:
    limits = {"acceleration": [acceleration] * 2, "jerk": [acceleration * per_second] * 2}
    task, dt = absolute_task(**limits) if absolute else changed(limits=limits), DT * 1e-9
    made, tick = gateway(lockstep=False, task=task), 0
    path = [HERE] * 3
    for number, (ticks, half_periods, actions) in enumerate(sequence):
        now = T0 + tick * DT
        plan = chunk(1 + number, now + half_periods * DT // 2, actions, observation_ns=now)
        made.on_chunk(plan, now, teleop=False)
        for _ in range(ticks):
            path.append(follow(made, T0 + tick * DT).target)
            tick += 1
    positions = np.array(path)
    velocity = np.diff(positions, axis=0) / dt
    change = np.diff(velocity, axis=0) / dt
    assert (positions >= task.limits.position_low).all()
    assert (positions <= task.limits.position_high).all()
    assert (np.abs(velocity) <= np.array(task.limits.velocity) + 1e-9).all()
    assert (np.abs(change) <= acceleration + 1e-6).all()
    assert (np.abs(np.diff(change, axis=0)) <= acceleration * per_second * dt + 1e-5).all()
