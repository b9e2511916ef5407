"""The messages that leave the gateway: each command type carries the shaped target or its velocity,
a hold is a standstill in each of them, and a tick is told with all that led to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from rl100_contracts.task import Task
from rl100_control.gateway import Gateway
from rl100_control.outgoing import COMMANDS, executed_message
from rl100_control.testing import DT, T0, changed, chunk, gateway, give
from rl100_control.tick import Mode, Tick

JOINTS = ["shoulder_joint", "elbow_joint"]
STEP = [0.01, -0.004]


def task_with(command_type: str) -> Task:
    action: dict[str, Any] = {"command_type": command_type}
    if "geometry" not in command_type:
        action |= {"space": "delta_joint_position", "names": JOINTS, "feedback": "joint_states"}
        action["fixed_position"] = {}
    return changed(action=action)


def moving_and_held(task: Task) -> tuple[Tick, Tick]:
    made = gateway(task=task)
    give(made, chunk(7, T0, [STEP]))
    moving, held = made.tick(T0), made.tick(T0 + DT)
    assert moving is not None and held is not None and held.hold
    return moving, held


def test_every_command_type_of_a_task_can_be_sent() -> None:
    types = Task.model_json_schema()["$defs"]["ActionSpace"]["properties"]["command_type"]["enum"]
    assert set(types) == set(COMMANDS)


def test_a_pose_is_stamped_and_keeps_what_is_not_commanded() -> None:
    task = task_with("geometry_msgs/msg/PoseStamped")
    moving, held = moving_and_held(task)
    command = COMMANDS[task.action.command_type]
    pose = command(task, moving)
    assert (pose.header.frame_id, pose.header.stamp.sec) == ("base_link", 1)
    position = pose.pose.position
    np.testing.assert_allclose((position.x, position.y, position.z), [*STEP, 0.02], atol=1e-8)
    assert command(task, held).pose == pose.pose


def test_a_twist_is_the_velocity_of_the_step_and_zero_in_a_hold() -> None:
    task = task_with("geometry_msgs/msg/TwistStamped")
    moving, held = moving_and_held(task)
    command = COMMANDS[task.action.command_type]
    linear = command(task, moving).twist.linear
    np.testing.assert_allclose((linear.x, linear.y, linear.z), [0.2, -0.08, 0.0], atol=1e-6)
    still = command(task, held).twist
    assert (still.linear.x, still.linear.y, still.angular.z) == (0.0, 0.0, 0.0)


def test_a_twist_turns_the_tool_about_the_axes_of_the_base_frame() -> None:
    names = ["x", "rx", "ry", "rz"]
    limits = {
        key: [value] * 4
        for key, value in (
            ("position_low", -0.5),
            ("position_high", 0.5),
            ("velocity", 1.0),
            ("acceleration", 100.0),
            ("jerk", 1e5),
        )
    }
    action = {
        "space": "delta_tool_pose",
        "names": names,
        "low": [-0.05] * 4,
        "high": [0.05] * 4,
        "command_type": "geometry_msgs/msg/TwistStamped",
        "quaternion_xyzw": [1.0, 0.0, 0.0, 0.0],
        "fixed_position": {},
    }
    task = changed(action=action, limits=limits)
    made = Gateway(task, Mode.POLICY, lockstep=True)
    made.on_feedback(T0, np.array([0.0, 0.3, -0.2, 0.1]))
    made.on_chunk(chunk(1, T0, [[0.0, 0.0, 0.0, 0.02]]), T0, teleop=False)
    tick = made.tick(T0)
    assert tick is not None and not tick.limited
    twist = COMMANDS[task.action.command_type](task, tick).twist
    angular = (twist.angular.x, twist.angular.y, twist.angular.z)
    np.testing.assert_allclose(angular, [0.0, 0.0, 0.4], atol=1e-6)


def test_an_array_and_a_trajectory_are_in_the_order_of_the_names() -> None:
    task = task_with("std_msgs/msg/Float64MultiArray")
    moving, held = moving_and_held(task)
    array = COMMANDS[task.action.command_type](task, moving)
    np.testing.assert_allclose(array.data, STEP, atol=1e-8)

    task = task_with("trajectory_msgs/msg/JointTrajectory")
    command = COMMANDS[task.action.command_type]
    trajectory = command(task, moving)
    assert trajectory.joint_names == JOINTS
    assert (trajectory.header.stamp.sec, trajectory.header.stamp.nanosec) == (0, 0)
    (point,) = trajectory.points
    np.testing.assert_allclose(point.positions, STEP, atol=1e-8)
    assert not len(point.velocities)  # a controller refuses a last point that moves
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, DT)
    np.testing.assert_allclose(command(task, held).points[0].positions, held.target)


@pytest.mark.parametrize(
    ("command_type", "space", "words"),
    [
        ("geometry_msgs/msg/PoseStamped", "joint_position", "for Cartesian spaces"),
        ("geometry_msgs/msg/TwistStamped", "joint_position", "for Cartesian spaces"),
        ("trajectory_msgs/msg/JointTrajectory", "tool_position", "for spaces of joints"),
    ],
)
def test_a_type_that_does_not_fit_the_space_is_refused(
    command_type: str, space: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        changed(action={"command_type": command_type, "space": space})


def test_a_tick_is_told_with_all_that_led_to_it() -> None:
    task = task_with("geometry_msgs/msg/PoseStamped")
    made = gateway(task=task)
    give(made, chunk(7, T0, [[0.5, 0.0]]))
    tick = made.tick(T0)
    assert tick is not None
    told = executed_message(task, tick)
    assert list(told.raw_action) == [0.5, 0.0]
    np.testing.assert_allclose(told.planned_target, [0.03, 0.0])
    np.testing.assert_allclose(told.target, [0.03, 0.0])
    assert (told.source, told.policy_version, told.chunk_sequence) == ("policy", "v1", 7)
    assert told.limited and told.reason == "limited: step size"
    assert told.sent and not told.hold and not told.shadow_target
    assert (told.mode, list(told.feedback)) == (told.MODE_POLICY, [0.0, 0.0])
