"""Whatever actions come, targets stay within position, velocity, acceleration and jerk limits.

Pins: limits for every sequence of actions, at every control rate (property tests); normal actions
pass unchanged; the executed action is the step really taken; braking ends exactly at a limit;
direction is kept; an absolute goal is reached without overshoot, and followed when it moves; a
hold stands still at once, a brake within the limits; the jerk limit of ``push`` changes nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl100_contracts.jerk import AxisLimits, braking_velocity, stop_distance, stops_inside
from rl100_contracts.motion import CommandShaper, NotSynced
from rl100_contracts.task import Task, load_task

TASK = load_task("push")
DT = 0.05
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
PAIR = st.tuples(FINITE, FINITE)


def _task(
    acceleration: float = 30.0,
    space: str = "delta_tool_position",
    jerk: float = 1e6,
    velocity: float = 0.65,
) -> Task:
    data = TASK.model_dump(mode="json")
    data["limits"] |= {"acceleration": [acceleration] * 2, "jerk": [jerk] * 2}
    data["limits"]["velocity"] = [velocity] * 2
    data["action"]["space"] = space
    if space == "tool_position":
        data["action"].update(low=[-1.0, -1.0], high=[1.0, 1.0])
    return Task.model_validate(data)


@given(
    start=PAIR,
    actions=st.lists(PAIR, min_size=1, max_size=60),
    acceleration=st.sampled_from([0.2, 1.0, 7.3, 30.0]),
    space=st.sampled_from(["delta_tool_position", "tool_position"]),
)
def test_limits_hold_for_any_actions(
    start: tuple[float, float],
    actions: list[tuple[float, float]],
    acceleration: float,
    space: str,
) -> None:
    task = _task(acceleration, space)
    shaper = CommandShaper(task)
    shaper.sync(np.array(start))
    low, high = np.array(task.limits.position_low), np.array(task.limits.position_high)
    limit = np.array(task.limits.velocity)
    previous, velocity = shaper.target, np.zeros(2)
    assert previous is not None
    for action in actions:
        target = shaper.shape(np.array(action), DT).target
        step = (target - previous) / DT
        # From outside it comes back, and never goes farther out.
        assert (target >= np.minimum(low, previous)).all()
        assert (target <= np.maximum(high, previous)).all()
        assert (np.abs(step) <= limit * (1 + 1e-9)).all()
        assert (np.abs(step - velocity) <= acceleration * DT + 1e-6).all()
        previous, velocity = target, step


KINDS = st.sampled_from(["one way", "turning", "random", "brake", "still", "wave"])


@settings(max_examples=100, deadline=None)
@given(
    velocity=st.floats(0.05, 3.0),
    acceleration=st.floats(0.1, 40.0),
    jerk=st.floats(0.3, 2000.0),
    dt=st.sampled_from([0.002, 0.01, 0.02, 0.05, 0.1]),
    space=st.sampled_from(["delta_tool_position", "tool_position"]),
    parts=st.lists(st.tuples(KINDS, st.integers(1, 40), PAIR), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
    outside=st.sampled_from([0.0, 0.0, 0.3]),
)
def test_jerk_and_all_other_limits_hold_for_any_actions(
    velocity: float,
    acceleration: float,
    jerk: float,
    dt: float,
    space: str,
    parts: list[tuple[str, int, tuple[float, float]]],
    seed: int,
    outside: float,
) -> None:
    task = _task(acceleration, space, jerk, velocity)
    rng = np.random.default_rng(seed)
    shaper = CommandShaper(task)
    low, high = np.array(task.limits.position_low), np.array(task.limits.position_high)
    shaper.sync(rng.uniform(low - outside, high + outside))
    x, v, a = shaper.target, np.zeros(2), np.zeros(2)
    for kind, count, direction in parts:
        for i in range(count):
            action = {
                "one way": np.sign(direction),
                "turning": np.sign(direction) * (-1) ** (i // 3),
                "wave": np.sin(i * 5 * dt) * np.array(high),
                "still": np.zeros(2),
            }.get(kind, rng.uniform(-1, 1, 2))
            shaped = shaper.brake(dt) if kind == "brake" else shaper.shape(action, dt)
            v_next = (shaped.target - x) / dt
            a_next = (v_next - v) / dt
            assert (shaped.target >= np.minimum(low, x)).all()
            assert (shaped.target <= np.maximum(high, x)).all()
            assert (np.abs(v_next) <= velocity * (1 + 1e-6) + 1e-9).all()
            assert (np.abs(a_next) <= acceleration * (1 + 1e-6) + 1e-7).all()
            assert (np.abs(a_next - a) <= jerk * dt * (1 + 1e-6) + 1e-6).all()
            x, v, a = shaped.target, v_next, a_next


@settings(max_examples=200, deadline=None)
@given(
    v=st.floats(-2.0, 2.0),
    part=st.floats(-1.0, 1.0),
    velocity=st.floats(0.1, 2.0),
    acceleration=st.floats(0.1, 40.0),
    jerk=st.floats(0.3, 2000.0),
    dt=st.sampled_from([0.002, 0.02, 0.1]),
)
def test_the_quick_bound_of_a_stop_is_never_too_small(
    v: float, part: float, velocity: float, acceleration: float, jerk: float, dt: float
) -> None:
    v = float(np.clip(v, -velocity, velocity))
    # Only accelerations that can end before the velocity limit occur.
    room = braking_velocity(velocity - abs(v), jerk, dt)
    a = part * min(acceleration, room)
    far = AxisLimits(-1e6, 1e6, velocity, acceleration, jerk)
    up, down = stop_distance(v, a, far, dt), stop_distance(-v, -a, far, dt)
    # With the bound itself as the limit the quick test is not what decides.
    near = AxisLimits(-down * (1 - 1e-9) - 1e-9, up * (1 - 1e-9) + 1e-9, *far[2:])
    assert stops_inside(0.0, v, a, near, dt)


@pytest.mark.parametrize("jerk", [20.0, 200.0, 1e6])
def test_an_absolute_goal_is_reached_without_overshoot(jerk: float) -> None:
    task = _task(acceleration=3.0, space="tool_position", jerk=jerk)
    shaper = CommandShaper(task)
    shaper.sync(np.array([-0.25, -0.2]))
    goal = np.array([0.2, -0.19])
    path = np.array([shaper.shape(goal, 0.02).target for _ in range(200)])
    assert (path <= goal + 1e-9).all()
    np.testing.assert_allclose(path[-1], goal, atol=1e-6)


def test_a_goal_that_moves_within_the_limits_is_followed_without_lag() -> None:
    shaper = CommandShaper(_task(acceleration=5.0, space="tool_position", jerk=50.0))
    shaper.sync(np.zeros(2))
    for step in range(300):
        goal = 0.1 * (1 - np.cos(np.pi * step * 0.02)) * np.ones(2)
        shaped = shaper.shape(goal, 0.02)
        assert not shaped.limited
        np.testing.assert_allclose(shaped.target, goal, atol=1e-12)


def test_a_hold_is_at_once_and_a_brake_within_the_limits() -> None:
    shaper = CommandShaper(_task(acceleration=3.0, jerk=60.0))

    def run_up() -> np.ndarray:
        shaper.sync(np.zeros(2))
        for _ in range(10):
            last = shaper.shape(np.array([0.03, 0.0]), DT)
        return last.target

    moving = run_up()
    np.testing.assert_array_equal(shaper.hold(), moving)
    np.testing.assert_array_equal(shaper.brake(DT).target, moving)
    moving = run_up()
    path = [shaper.brake(DT).target[0] for _ in range(30)]
    assert path[0] > moving[0] + 0.01
    assert path[-1] == pytest.approx(path[-2], abs=1e-9)


def test_the_jerk_limit_of_push_changes_nothing_in_its_motion() -> None:
    """Policies are trained on the motion of position, velocity and acceleration limits alone."""
    limits = TASK.limits
    low, high = np.array(limits.position_low), np.array(limits.position_high)
    step_low, step_high = np.array(TASK.action.low), np.array(TASK.action.high)
    change = np.array(limits.acceleration) * DT
    rng = np.random.default_rng(0)
    shaper = CommandShaper(TASK)
    for _ in range(40):
        shaper.sync(rng.uniform(low, high))
        x, v = shaper.target, np.zeros(2)
        assert x is not None
        for action in rng.normal(0.0, rng.choice([0.005, 0.03, 1.0]), (100, 2)):
            wanted = np.clip(x + np.clip(action, step_low, step_high), low, high) - x
            wanted /= DT * max(np.max(np.abs(wanted / DT) / limits.velocity), 1.0)
            wanted = np.clip(wanted, v - change, v + change)
            most = [
                [braking_velocity(d, a, DT) for d, a in zip(room, limits.acceleration, strict=True)]
                for room in (x - low, high - x)
            ]
            target = np.clip(x + np.clip(wanted, -np.array(most[0]), most[1]) * DT, low, high)
            np.testing.assert_array_equal(shaper.shape(action, DT).target, target)
            x, v = target, (target - x) / DT


@given(st.lists(st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)), max_size=5))
def test_normal_actions_pass_unchanged(actions: list[tuple[float, float]]) -> None:
    shaper = CommandShaper(_task())
    shaper.sync(np.zeros(2))
    expected: NDArray[np.float64] = np.zeros(2)
    for action in actions:
        shaped = shaper.shape(np.array(action), DT)
        expected = expected + action
        assert not shaped.limited
        np.testing.assert_allclose(shaped.target, expected, atol=1e-12)
        np.testing.assert_allclose(shaped.action, action, atol=1e-8)


def test_executed_action_is_the_step_taken() -> None:
    limit = TASK.limits.position_high[0]
    shaper = CommandShaper(_task())
    shaper.sync(np.array([limit - 0.01, 0.0]))
    shaped = shaper.shape(np.array([0.03, 0.0]), DT)
    assert shaped.limited and "position" in shaped.reason
    np.testing.assert_allclose(shaped.target[0], limit)
    np.testing.assert_allclose(shaped.action[0], 0.01, atol=1e-8)


def test_fast_move_keeps_its_direction() -> None:
    task = _task(acceleration=1000.0, jerk=1e9, space="tool_position")
    shaper = CommandShaper(task)
    shaper.sync(np.zeros(2))
    shaped = shaper.shape(np.array([0.2, 0.1]), DT)
    assert "velocity" in shaped.reason
    np.testing.assert_allclose(shaped.target[0] / shaped.target[1], 2.0)


def test_braking_ends_at_the_limit_without_overshoot() -> None:
    """A slow-braking axis driven into its limit arrives there and never passes it."""
    shaper = CommandShaper(_task(acceleration=0.5))
    shaper.sync(np.zeros(2))
    positions = [shaper.shape(np.array([0.03, 0.0]), DT).target[0] for _ in range(200)]
    limit = TASK.limits.position_high[0]
    assert max(positions) <= limit
    assert positions[-1] == pytest.approx(limit, abs=1e-6)


@given(distance=st.floats(0, 10), acceleration=st.floats(0.1, 50))
def test_braking_velocity_against_a_stepwise_stop(distance: float, acceleration: float) -> None:
    velocity = braking_velocity(distance, acceleration, DT)
    travelled, speed = 0.0, velocity
    while speed > 0:
        travelled += speed * DT
        speed -= acceleration * DT
    assert travelled == pytest.approx(distance, abs=1e-6, rel=1e-6)


def test_no_motion_before_the_position_is_known() -> None:
    shaper = CommandShaper(_task())
    with pytest.raises(NotSynced):
        shaper.shape(np.zeros(2), DT)
    with pytest.raises(NotSynced):
        shaper.hold()


@pytest.mark.parametrize("space", ["delta_tool_position", "tool_position"])
@pytest.mark.parametrize("jerk", [60.0, 1e6])
def test_a_robot_outside_its_limits_comes_back_inside(space: str, jerk: float) -> None:
    task = _task(3.0, space, jerk)
    shaper, high = CommandShaper(task), np.array(task.limits.position_high)
    shaper.sync(high + 0.1)
    assert shaper.beyond == pytest.approx(0.1)
    assert (shaper.hold() == high + 0.1).all(), "a hold pulled it"
    for _ in range(60):
        shaper.shape(np.zeros(2), DT)
    assert shaper.beyond == 0.0
    shaper.sync(high + 1e-3)  # noise of a robot at the limit
    assert shaper.beyond == 0.0


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [0.0], [0.0, 0.0, 0.0]])
def test_bad_values_never_become_a_target(bad: list[float]) -> None:
    shaper = CommandShaper(_task())
    shaper.sync(np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        shaper.shape(np.array(bad), DT)
    with pytest.raises(ValueError, match="finite"):
        shaper.sync(np.array(bad))
    target = shaper.target
    assert target is not None
    np.testing.assert_array_equal(target, np.zeros(2))
