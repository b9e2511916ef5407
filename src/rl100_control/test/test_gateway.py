"""What the gateway lets through: nothing outside the task's limits whatever comes in, nothing
before feedback, nothing late, expired or out of order; newer plans replace older ones by time;
feedback that is stale, jumps or disagrees with the target holds; a stop latches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.chunks import Chunk, check_chunk
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_control.gateway import Gateway
from rl100_control.testing import (
    DT,
    HERE,
    T0,
    TASK,
    absolute_task,
    changed,
    chunk,
    follow,
    gateway,
    give,
)
from rl100_control.tick import Mode

# --- nothing without feedback, nothing in idle


def test_nothing_is_sent_before_the_first_feedback() -> None:
    made = Gateway(TASK, Mode.POLICY)
    give(made, chunk())
    assert made.tick(T0) is None


def test_nothing_is_sent_in_idle() -> None:
    made = gateway(Mode.IDLE)
    give(made, chunk())
    assert made.tick(T0) is None
    assert not made.can_tick(T0)


def test_feedback_that_is_not_finite_is_refused() -> None:
    made = Gateway(TASK, Mode.POLICY)
    assert "finite" in made.on_feedback(T0, np.array([np.nan, 0.0]))
    assert made.tick(T0) is None


# --- execution


@pytest.mark.parametrize("task", [TASK, absolute_task()], ids=["delta", "absolute"])
def test_within_the_limits_exactly_what_was_asked_for_is_executed(task: Task) -> None:
    rng = np.random.default_rng(0)
    made = gateway(task=task)
    wanted = rng.uniform(-0.004, 0.004, (40, 2)).astype(np.float32)
    if not task.action.is_delta:
        wanted = wanted.cumsum(axis=0, dtype=np.float32)
    for i, action in enumerate(wanted):
        now = T0 + i * DT
        give(made, chunk(i + 1, now, [action]), now)
        tick = follow(made, now)
        assert not tick.hold and not tick.limited
        np.testing.assert_array_equal(tick.action, action)


def test_a_chunk_is_executed_by_its_stamps_then_the_robot_holds() -> None:
    made = gateway()
    actions = [[0.01, 0.0], [0.0, 0.01], [-0.01, 0.0]]
    give(made, chunk(actions=actions))
    for i in range(3):
        assert made.can_tick(T0 + i * DT)
        tick = follow(made, T0 + i * DT)
        assert tick.planned is not None and tick.planned.index == i
        np.testing.assert_array_equal(tick.action, np.float32(actions[i]))
    assert not made.can_tick(T0 + 3 * DT)
    last = tick.target
    tick = follow(made, T0 + 3 * DT)
    assert tick.hold and tick.planned is None and tick.reason == "no action is due"
    np.testing.assert_array_equal(tick.target, last)
    np.testing.assert_array_equal(tick.action, [0.0, 0.0])


@settings(max_examples=60, deadline=None)
@given(st.integers(-DT // 2 + 1, DT // 2 - 1))
def test_an_action_is_executed_at_the_nearest_tick_and_only_once(offset: int) -> None:
    made = gateway()
    give(made, chunk(start=T0 + 2 * DT + offset), T0)
    executed = [not follow(made, T0 + i * DT).hold for i in range(6)]
    assert executed == [False, False, True, False, False, False]


def test_late_actions_are_dropped() -> None:
    made = gateway()
    give(made, chunk(actions=[[0.001 * i, 0.0] for i in range(6)]), T0)
    made.on_feedback(T0 + 4 * DT, HERE)
    tick = made.tick(T0 + 4 * DT)
    assert tick is not None and tick.planned is not None and tick.planned.index == 4
    assert made.dropped_actions == 4


def test_an_expired_action_is_not_started() -> None:
    made = gateway()
    give(made, chunk(actions=[[0.01, 0], [0.01, 0]], expires_ns=T0 + DT // 2))
    assert not follow(made, T0).hold
    assert follow(made, T0 + DT).hold


# --- splicing


def test_a_newer_chunk_replaces_the_rest_of_an_older_one_by_time() -> None:
    made = gateway()
    give(made, chunk(1, T0, [[0.001, 0]] * 6))
    give(made, chunk(2, T0 + 2 * DT, [[0.002, 0]] * 2))
    ticks = [follow(made, T0 + i * DT) for i in range(5)]
    assert [t.planned.chunk.sequence if t.planned else None for t in ticks] == [1, 1, 2, 2, None]


@pytest.mark.parametrize(
    "second",
    [
        chunk(7, T0 + DT),  # the same sequence again
        chunk(6, T0 + DT),  # an older one
        chunk(3, T0 + DT, policy_version="v2"),  # a second policy
        chunk(8, T0, observation_ns=T0 - DT),  # computed from an older observation
    ],
    ids=["duplicate", "out of order", "second publisher", "older observation"],
)
def test_chunks_out_of_order_are_refused_and_counted(second: Chunk) -> None:
    made = gateway()
    assert give(made, chunk(7, T0, [[0.001, 0]] * 4)) == ""
    assert f"chunk {second.sequence}" in give(made, second)
    assert made.dropped_chunks == 1
    assert [follow(made, T0 + i * DT).planned.chunk.sequence for i in range(4)] == [7] * 4  # type: ignore[union-attr]


def test_a_restarted_publisher_is_heard_once_its_old_chunk_expired() -> None:
    made = gateway()
    give(made, chunk(50))
    later = T0 + 20 * DT
    made.on_feedback(later, HERE)
    assert give(made, chunk(1, later), later) == ""
    assert not follow(made, later).hold


def test_a_clock_that_starts_again_is_followed() -> None:
    made = gateway()
    made.on_feedback(T0 * 50, HERE)
    give(made, chunk(50, T0 * 50), T0 * 50)
    assert not follow(made, T0 * 50).hold
    assert made.on_feedback(T0, HERE) == ""
    assert give(made, chunk(1, T0), T0) == ""
    assert not follow(made, T0).hold


def test_a_plan_does_not_reach_across_a_reset() -> None:
    made = gateway()
    give(made, chunk(actions=[[0.01, 0.0]] * 64))
    follow(made, T0)
    after_reset = T0 + 1_000_000_000
    made.on_feedback(after_reset, HERE)
    assert not made.can_tick(after_reset)
    assert "before" in give(made, chunk(2, T0 + 1, [[0.01, 0.0]] * 64), after_reset)
    assert give(made, chunk(3, after_reset), after_reset) == ""
    assert made.can_tick(after_reset)


def test_in_lockstep_a_chunk_may_overtake_the_feedback_of_its_tick() -> None:
    made = gateway()
    after_reset = T0 + 10 * 1_000_000_000
    assert give(made, chunk(2, after_reset), T0) == ""
    made.on_feedback(after_reset, HERE)
    assert made.can_tick(after_reset)
    assert not follow(made, after_reset).hold


def test_in_real_time_late_and_future_chunks_are_refused() -> None:
    made = gateway(lockstep=False)
    assert "too late" in give(made, chunk(1, T0 - 5 * DT))
    assert "future" in give(made, chunk(2, T0 + 100 * DT))


# --- arbitration and stop


def test_only_the_publisher_of_the_mode_moves_the_robot() -> None:
    for mode, teleop in ((Mode.POLICY, True), (Mode.TELEOP, False), (Mode.TAKEOVER, False)):
        made = gateway(mode)
        give(made, chunk(), teleop=teleop)
        assert follow(made, T0).hold
    for mode, teleop in ((Mode.POLICY, False), (Mode.TELEOP, True), (Mode.TAKEOVER, True)):
        made = gateway(mode)
        give(made, chunk(), teleop=teleop)
        assert not follow(made, T0).hold


def test_in_real_time_a_change_of_mode_drops_what_was_planned() -> None:
    made = gateway(Mode.POLICY, lockstep=False)
    give(made, chunk())
    made.set_mode(Mode.TAKEOVER)
    made.set_mode(Mode.POLICY)
    assert follow(made, T0).hold


def test_a_stop_latches_until_it_is_cleared() -> None:
    made = gateway()
    give(made, chunk(actions=[[0.01, 0]] * 4))
    made.stop("'keyboard' pressed stop")
    for i in range(3):
        give(made, chunk(10 + i, T0 + i * DT, [[0.01, 0]] * 4), T0 + i * DT)
        tick = follow(made, T0 + i * DT)
        assert tick.hold and tick.mode is Mode.STOPPED and "pressed stop" in tick.reason
        np.testing.assert_array_equal(tick.target, HERE)
        for mode in (Mode.IDLE, Mode.POLICY, Mode.TELEOP, Mode.TAKEOVER):
            assert "clear_stop" in made.set_mode(mode)
    assert made.set_mode(Mode.POLICY, clear_stop=True) == ""
    give(made, chunk(99, T0 + 3 * DT), T0 + 3 * DT)
    assert not follow(made, T0 + 3 * DT).hold


def test_the_reason_of_a_stop_stays_when_feedback_ends_too() -> None:
    made = gateway(lockstep=False)
    made.stop("'keyboard' pressed stop")
    tick = made.tick(T0 + 1_000_000_000)
    assert tick is not None and tick.hold and tick.reason == "'keyboard' pressed stop"


def test_mode_stopped_latches_too() -> None:
    made = gateway()
    assert made.set_mode(Mode.STOPPED) == ""
    assert made.set_mode(Mode.POLICY) != ""
    assert made.mode is Mode.STOPPED


# --- feedback


def test_stale_feedback_holds_in_real_time_and_recovers() -> None:
    made = gateway(lockstep=False)
    late = T0 + round(TASK.safety.feedback_timeout_s * 1e9) + DT
    give(made, chunk(1, late, [[0.01, 0]] * 9), late)
    tick = made.tick(late)
    assert (
        tick is not None and tick.hold and "no feedback on /tool_pose for more than" in tick.reason
    )
    made.on_feedback(late + DT, HERE)
    tick = made.tick(late + DT)
    assert tick is not None and not tick.hold


def test_feedback_from_the_future_holds_in_real_time() -> None:
    made = gateway(lockstep=False)
    now = T0 - 1_000_000_000
    give(made, chunk(1, now), now)
    tick = made.tick(now)
    assert tick is not None and tick.hold and "clocks" in tick.reason


@pytest.mark.parametrize("later", [T0 + 2_000_000_000, T0 + DT], ids=["gap", "jump"])
def test_after_a_gap_or_a_jump_the_target_starts_at_the_robot(later: int) -> None:
    made = gateway()
    there = np.array([-0.2, 0.2])
    made.tick(T0)
    made.on_feedback(later, there)
    give(made, chunk(1, later, [[0.01, 0.0]]), later)
    tick = made.tick(later)
    assert tick is not None and not tick.hold
    np.testing.assert_allclose(tick.target, there + np.array([0.01, 0.0]), atol=1e-8)


def test_a_robot_that_does_not_follow_is_held_where_it_is() -> None:
    made = gateway()
    give(made, chunk(actions=[[0.03, 0.0]] * 12))
    for i in range(12):
        made.on_feedback(T0 + i * DT, np.array([1e-6 * i, 0.0]))
        tick = made.tick(T0 + i * DT)
        assert tick is not None
        if tick.hold:
            break
    assert tick.hold and "max_tracking_error" in tick.reason
    np.testing.assert_allclose(tick.target, [0.0, 0.0], atol=1e-4)
    assert 0.03 * i > TASK.limits.max_tracking_error


def test_after_a_long_hold_motion_starts_at_the_robot() -> None:
    made = gateway()
    give(made, chunk())
    follow(made, T0)
    sagged = np.array([-0.05, 0.03])
    for i in range(1, 14):
        made.on_feedback(T0 + i * DT, sagged * i / 13)
        made.tick(T0 + i * DT)
    now = T0 + 14 * DT
    made.on_feedback(now, sagged)
    give(made, chunk(2, now, [[0.01, 0.0]]), now)
    tick = made.tick(now)
    assert tick is not None and not tick.hold
    np.testing.assert_allclose(tick.target, sagged + np.array([0.01, 0.0]), atol=1e-8)


@pytest.mark.parametrize(("kind", "sent"), [("PoseStamped", False), ("TwistStamped", True)])
def test_a_robot_far_outside_its_limits_gets_no_target(kind: str, sent: bool) -> None:
    """No velocity is no leap, and the last one must not go on."""
    task = changed(action={"command_type": f"geometry_msgs/msg/{kind}"})
    made = Gateway(task, Mode.POLICY, lockstep=True)
    made.on_feedback(T0, np.array([0.6, 0.0]))
    give(made, chunk())
    tick = made.tick(T0)
    assert tick is not None and tick.hold and "by hand" in tick.reason
    assert tick.send is sent and not tick.velocity.any()


# --- checks from outside


def test_a_target_that_a_check_refuses_is_a_hold_with_its_sentence() -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def check(target: np.ndarray, feedback: np.ndarray) -> str:
        seen.append((target, feedback))
        return "the elbow would touch the table" if target[0] > 0.015 else ""

    made = Gateway(TASK, Mode.POLICY, lockstep=True, checks=[lambda *_: "", check])
    made.on_feedback(T0, HERE)
    give(made, chunk(actions=[[0.01, 0.0], [0.01, 0.0], [0.0, 0.01]]))
    ticks = [follow(made, T0 + i * DT) for i in range(3)]
    assert [tick.hold for tick in ticks] == [False, True, False]
    assert ticks[1].reason == "the elbow would touch the table"
    np.testing.assert_array_equal(ticks[1].target, ticks[0].target)
    np.testing.assert_allclose(ticks[2].target, [0.01, 0.01], atol=1e-8)
    np.testing.assert_array_equal(seen[1][1], ticks[0].target)


# --- the invariant

numbers = st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 0.03])
events = st.lists(
    st.tuples(
        st.integers(0, 40),  # sequence
        st.integers(-6, 6),  # start, in half periods from now
        st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6),
        st.booleans(),  # teleop
        st.sampled_from(["", "stop", "clear", "takeover", "jump", "silent", "nan"]),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(events, st.booleans(), st.booleans())
def test_whatever_comes_in_the_target_keeps_the_limits(
    sequence: list[Any], lockstep: bool, absolute: bool
) -> None:
    task = absolute_task() if absolute else TASK
    made = gateway(lockstep=lockstep, task=task)
    low, high = np.array(task.limits.position_low), np.array(task.limits.position_high)
    fastest = np.array(task.limits.velocity) * DT * 1e-9 + 1e-9
    rng = np.random.default_rng(0)
    previous: np.ndarray | None = None
    position = told = HERE  # where the robot is, and where it last said that it was
    for step, (number, half_periods, actions, teleop, event) in enumerate(sequence):
        now = T0 + (step + 1) * DT
        plan = chunk(number, now + half_periods * DT // 2, actions)
        try:
            check_chunk(plan, task)
            made.on_chunk(plan, now, teleop=teleop)
        except ContractError:
            assert not np.isfinite(actions).all()
        if event == "stop":
            made.stop("test")
        elif event == "clear":
            made.set_mode(Mode.POLICY, clear_stop=True)
        elif event == "takeover":
            made.set_mode(Mode.TAKEOVER)
        moved = event == "jump"
        if moved:
            position = rng.uniform(low, high)
        if event != "silent":
            made.on_feedback(now, np.array([np.nan, 0.0]) if event == "nan" else position)
        if event not in ("silent", "nan"):
            told = position
        tick = made.tick(now)
        assert tick is not None
        assert np.isfinite(tick.target).all()
        assert (tick.target >= low).all() and (tick.target <= high).all()
        start = position if np.abs(tick.target - position).max() <= fastest.max() else previous
        if start is not None:
            # One step on from the last target, or (after a jump) from where the robot says it is.
            gaps = [np.abs(tick.target - place) for place in (start, position, told)]
            assert any((gap <= fastest).all() for gap in gaps)
        if tick.mode is Mode.STOPPED:
            assert tick.hold
        previous, position = tick.target, tick.target
