"""Whatever actions come, the targets stay within position, velocity and acceleration limits.

Pins: limits for every sequence of actions (property test); normal actions pass unchanged; the
executed action is the step really taken; braking ends exactly at a limit; direction is kept.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl100_contracts.motion import CommandShaper, NotSynced, braking_velocity
from rl100_contracts.task import Task, load_task

TASK = load_task("push")
DT = 0.05
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
PAIR = st.tuples(FINITE, FINITE)


def _task(acceleration: float = 30.0, space: str = "delta_tool_position") -> Task:
    data = TASK.model_dump(mode="json")
    data["limits"]["acceleration"] = [acceleration] * 2
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
        assert (target >= low).all() and (target <= high).all()
        assert (np.abs(step) <= limit * (1 + 1e-9)).all()
        assert (np.abs(step - velocity) <= acceleration * DT + 1e-6).all()
        previous, velocity = target, step


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
    task = _task(acceleration=1000.0, space="tool_position")
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
    velocity = float(braking_velocity(np.array([distance]), np.array([acceleration]), DT)[0])
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
