"""Pins the way from keys and sticks to actions: within the task's bounds whatever is pressed,
motion ends soon after the last key repeat, nothing moves without the dead-man button.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.chunks import check_chunk
from rl100_contracts.errors import ContractError
from rl100_contracts.task import NANOSECONDS, Task, load_task
from rl100_teleop.joystick import JoyPilot
from rl100_teleop.keys import KeyPilot, key_table
from rl100_teleop.steering import Engagement, Steering

# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TASK = load_task("push")
KEYS = [*key_table(TASK, []), "shift+up", "[", "]", "s", "esc", ""]


def absolute() -> Task:
    """The built-in task with targets in place of steps."""
    space = {"space": "tool_position", "low": [-0.2, -0.2], "high": [0.2, 0.2]}
    return TASK.model_copy(update={"action": TASK.action.model_copy(update=space)})


def test_delta_actions_are_parts_of_the_largest_step() -> None:
    steering = Steering(TASK, "keyboard", 1)
    assert not steering.needs_feedback
    np.testing.assert_allclose(steering.action(np.array([1.0, -1.0]), 0.5), [0.015, -0.015])
    np.testing.assert_allclose(steering.action(np.array([9.0, 0.0]), 7.0), [0.03, 0.0])


def test_absolute_targets_start_from_the_robot_and_move_at_most_at_full_speed() -> None:
    task = absolute()
    steering = Steering(task, "joy", 1)
    assert steering.needs_feedback
    with pytest.raises(ValueError, match="measured position"):
        steering.action(np.zeros(2), 1.0)
    start = np.array([0.1, 0.0])
    step = task.limits.velocity[0] / task.control.rate_hz
    first = steering.action(np.array([1.0, 0.0]), 1.0, start)
    np.testing.assert_allclose(first, start + np.array([step, 0.0]), rtol=1e-6)
    # The target doesn't follow the robot's lag …
    np.testing.assert_allclose(
        steering.action(np.array([1.0, 0.0]), 1.0, start),
        start + np.array([2 * step, 0.0]),
        rtol=1e-6,
    )
    # … but each new motion starts from where the robot is.
    steering.release()
    np.testing.assert_allclose(steering.action(np.zeros(2), 1.0, start), start, rtol=1e-6)


@UNHURRIED
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.floats(-5, 5, allow_nan=False), st.floats(-5, 5, allow_nan=False), st.floats(0, 3)
        ),
        max_size=30,
    ),
)
def test_actions_stay_within_the_bounds(
    is_delta: bool, moves: list[tuple[float, float, float]]
) -> None:
    task = TASK if is_delta else absolute()
    steering = Steering(task, "keyboard", 5)
    low, high = np.float32(task.action.low), np.float32(task.action.high)
    for number, (x, y, speed) in enumerate(moves):
        action = steering.action(np.array([x, y]), speed, np.array([0.5, -0.5]))
        assert (action >= low).all() and (action <= high).all()
        chunk = steering.chunk(action, (number + 1) * NANOSECONDS)
        check_chunk(chunk, task)
        assert chunk.sequence == 5 + number
        assert chunk.stamps_ns.tolist() == [(number + 1) * NANOSECONDS]
        assert 0 < chunk.expires_ns - chunk.stamps_ns[0] < NANOSECONDS // 5


def test_held_key_moves_until_its_repeats_end() -> None:
    pilot = KeyPilot(key_table(TASK, []), 2)
    assert pilot.steer(0.0)[0].tolist() == [0.0, 0.0]
    pilot.press("up", 1.0)
    assert pilot.steer(1.09)[0].tolist() == [1.0, 0.0]
    assert pilot.steer(1.2)[0].tolist() == [0.0, 0.0]  # a tap ends by itself
    for index in range(30):  # the terminal's repeats begin after its delay
        pilot.press("up", 1.5 + index * 0.033)
        assert pilot.steer(1.5 + index * 0.033 + 0.03)[0].tolist() == [1.0, 0.0]
    last = 1.5 + 29 * 0.033
    assert pilot.steer(last + 0.14)[0].tolist() == [1.0, 0.0]
    assert pilot.steer(last + 0.16)[0].tolist() == [0.0, 0.0]


def test_keys_of_both_axes_add_and_opposites_replace() -> None:
    pilot = KeyPilot(key_table(TASK, []), 2)
    pilot.press("up", 0.0)
    pilot.press("left", 0.01)
    assert pilot.steer(0.02)[0].tolist() == [1.0, 1.0]
    pilot.press("k", 0.03)
    assert pilot.steer(0.04)[0].tolist() == [-1.0, 1.0]
    pilot.stop()
    assert pilot.steer(0.04)[0].tolist() == [0.0, 0.0]


def test_speed_keys_and_inverted_axes() -> None:
    pilot = KeyPilot(key_table(TASK, ["y"]), 2, speed=0.4)
    assert pilot.press("]", 0.0) and pilot.speed == pytest.approx(0.5)
    for _ in range(40):
        pilot.press("[", 0.0)
    assert pilot.speed == pytest.approx(0.05)
    pilot.press("shift+left", 0.0)
    direction, speed = pilot.steer(0.05)
    assert direction.tolist() == [0.0, -1.0] and speed == 1.0
    assert not pilot.press("s", 0.0) and not pilot.press("esc", 0.0)
    with pytest.raises(ContractError, match="parameter invert names 'z'"):
        key_table(TASK, ["z"])


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0, 1))))
def test_any_keys_give_a_direction_that_ends(presses: list[tuple[str, float]]) -> None:
    pilot, now = KeyPilot(key_table(TASK, []), 2), 0.0
    for key, pause in presses:
        now += pause
        pilot.press(key, now)
        direction, speed = pilot.steer(now)
        assert set(direction) <= {-1.0, 0.0, 1.0} and 0.05 <= speed <= 1.0
    assert not pilot.steer(now + 0.2)[0].any()


def test_joint_tasks_have_keys_too() -> None:
    names = [f"joint_{index}" for index in range(9)]

    def task(count: int) -> Task:
        space = {
            "space": "delta_joint_position", "names": names[:count],
            "low": [-0.1] * count, "high": [0.1] * count,
        }  # fmt: skip
        return TASK.model_copy(update={"action": TASK.action.model_copy(update=space)})

    table = key_table(task(8), [])
    assert {index for index, _ in table.values()} == set(range(8))
    labels = {"s", "f", "d", "r", "h", "q", "space", "esc", "[", "]", *"123456789"}
    assert not labels & set(table)
    with pytest.raises(ContractError, match="9 joints, the keyboard can steer 8"):
        key_table(task(9), [])


def test_keys_turn_the_tool_about_each_axis() -> None:
    names = ["x", "y", "z", "rx", "ry", "rz"]
    space = {"space": "delta_tool_pose", "names": names, "low": [-0.1] * 6, "high": [0.1] * 6}
    task = TASK.model_copy(update={"action": TASK.action.model_copy(update=space)})
    table = key_table(task, ["rz"])
    assert [table[key] for key in "YHUJIK"] == [
        (3, 1.0), (3, -1.0), (4, 1.0), (4, -1.0), (5, -1.0), (5, 1.0)
    ]  # fmt: skip
    assert {index for index, _ in table.values()} == set(range(6))
    assert len(table) == 6 * 2 + 6  # two keys more for each of x, y, z: no key does two things


def test_operator_is_engaged_through_short_pauses() -> None:
    engagement = Engagement(release_s=1.0)
    assert not engagement.update(False, 0.0)
    assert engagement.update(True, 1.0)
    assert engagement.update(False, 1.9)
    assert not engagement.update(False, 2.1)
    assert not engagement.update(False, 2.2)
    assert engagement.update(True, 3.0)
    assert engagement.end() and not engagement.end()
    assert not engagement.update(False, 3.1)


def test_joystick_moves_only_with_the_deadman_and_while_it_talks() -> None:
    pilot = JoyPilot([1, 0], [1.0, -1.0], deadman=2, deadzone=0.1, timeout_s=0.5)
    assert pilot.steer(0.0) is None
    pilot.receive([0.5, 1.0], [0, 0, 0], 1.0)
    assert pilot.steer(1.0) is None
    pilot.receive([0.05, 1.0], [0, 0, 1], 2.0)
    direction = pilot.steer(2.1)
    assert direction is not None and direction.tolist() == [1.0, 0.0]
    assert pilot.steer(2.6) is None  # unplugged: the last deflection must not go on
    pilot.receive([0.55, float("nan")], [0, 0, 1], 3.0)
    direction = pilot.steer(3.0)
    assert direction is not None
    np.testing.assert_allclose(direction, [0.0, -0.5])


def test_joystick_buttons_count_when_they_go_down() -> None:
    pilot = JoyPilot([0], [1.0], deadman=0)
    assert pilot.receive([0.0], [0, 1], 0.0) == []  # held since before we listened
    assert pilot.receive([0.0], [0, 0], 0.1) == []
    assert pilot.receive([0.0], [0, 1], 0.2) == [1]
    assert pilot.receive([0.0], [0, 1], 0.3) == []


def test_joystick_that_does_not_fit_is_one_sentence_and_no_motion() -> None:
    pilot = JoyPilot([0, 3], [1.0, 1.0], deadman=0)
    pilot.receive([1.0] * 4, [1], 0.0)
    assert pilot.steer(0.0) is not None
    with pytest.raises(ContractError, match="has 2 axes and 1 buttons, the mapping needs axis 3"):
        pilot.receive([0.0, 0.0], [1], 0.1)
    assert pilot.steer(0.1) is None
    with pytest.raises(ContractError, match="signs has 1 values"):
        JoyPilot([0, 1], [1.0], deadman=0)
    with pytest.raises(ContractError, match="indices from 0"):
        JoyPilot([-1], [1.0], deadman=0)
