"""Tool poses as vectors: one to one, without jumps, and never faster than their coordinates.

Pins: pose to coordinates and back; a step is a rotation about the base frame's axes; what a step
measures is what it does; the shaped targets of pose spaces keep every limit, the tool's true
angular velocity included; one rotation alone (rz) needs no others; mistakes are one sentence.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from rl100_contracts.decode import decode_feedback, decode_proprioception
from rl100_contracts.errors import ContractError
from rl100_contracts.motion import CommandShaper
from rl100_contracts.pose import ToolCoordinates
from rl100_contracts.task import Task, load_task

NAMES = ["x", "y", "z", "rx", "ry", "rz"]
DOWN = [1.0, 0.0, 0.0, 0.0]  # the tool's z axis points down
DT = 0.05

unit = st.floats(-1.0, 1.0, allow_nan=False)
vectors = st.tuples(unit, unit, unit).map(np.array)
quaternions = (
    st.tuples(unit, unit, unit, unit)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)


def task_of(space: str = "delta_tool_pose", **action: Any) -> Task:
    data = load_task("push").model_dump(mode="json")
    names = action.get("names", NAMES)
    linear = [name in "xyz" for name in names]
    step = [0.03 if is_linear else 0.1 for is_linear in linear]
    bounds = [0.3 if is_linear else 1.2 for is_linear in linear]
    largest = step if space.startswith("delta_") else bounds
    data["action"].update(
        space=space,
        names=names,
        low=[-v for v in largest],
        high=largest,
        fixed_position={},
        quaternion_xyzw=DOWN,
    )
    data["action"].update(action)
    data["limits"].update(
        position_low=[-v for v in bounds],
        position_high=bounds,
        velocity=[0.5 if is_linear else 1.5 for is_linear in linear],
        acceleration=[3.0 if is_linear else 9.0 for is_linear in linear],
        jerk=[60.0 if is_linear else 180.0 for is_linear in linear],
    )
    return Task.model_validate(data)


def message(position: Any, quaternion: Any) -> Any:
    p = dict(zip("xyz", map(float, position), strict=True))
    q = dict(zip("xyzw", map(float, quaternion), strict=True))
    pose = SimpleNamespace(position=SimpleNamespace(**p), orientation=SimpleNamespace(**q))
    return SimpleNamespace(pose=pose)


def angle(a: Rotation, b: Rotation) -> float:
    return float((a * b.inv()).magnitude())


@given(position=vectors, quaternion=quaternions, nominal=quaternions)
def test_pose_to_coordinates_and_back(position: Any, quaternion: Any, nominal: Any) -> None:
    tool = ToolCoordinates(NAMES, None, nominal.tolist())
    values = tool.of_pose(position, quaternion)
    assert np.linalg.norm(values[3:]) <= math.pi + 1e-9
    back, turned = tool.pose(values)
    np.testing.assert_allclose(back, position)
    assert angle(Rotation.from_quat(turned), Rotation.from_quat(quaternion)) < 1e-7


@given(values=vectors, turn=vectors, nominal=quaternions)
def test_a_step_turns_about_the_axes_of_the_base_frame(
    values: Any, turn: Any, nominal: Any
) -> None:
    tool = ToolCoordinates(NAMES, None, nominal.tolist())
    before = np.concatenate([values, values])
    step = np.concatenate([0.1 * turn, turn])
    after = tool.add(before, step)
    old, new = (Rotation.from_quat(tool.pose(v)[1]) for v in (before, after))
    assert angle(new, Rotation.from_rotvec(turn) * old) < 1e-7
    np.testing.assert_allclose(after[:3], values + 0.1 * turn)
    np.testing.assert_allclose(tool.step(before, after), step, atol=1e-7)
    linear, angular = tool.twist(before, after, DT)
    np.testing.assert_allclose(np.concatenate([linear, angular]) * DT, step, atol=1e-7)


@settings(deadline=None)
@given(
    start=vectors,
    actions=st.lists(st.tuples(*[st.floats(-3, 3)] * 6), min_size=1, max_size=30),
    space=st.sampled_from(["delta_tool_pose", "tool_pose"]),
)
def test_every_limit_holds_for_any_actions(start: Any, actions: Any, space: str) -> None:
    task = task_of(space)
    limits, tool = task.limits, task.action.coordinates
    shaper = CommandShaper(task)
    shaper.sync(np.concatenate([0.3 * start, 1.2 * start]))
    previous, velocity = shaper.target, np.zeros(6)
    assert previous is not None
    for action in actions:
        shaped = shaper.shape(np.array(action), DT)
        target = shaped.target
        assert (target >= limits.position_low).all() and (target <= limits.position_high).all()
        moved = (target - previous) / DT
        assert (np.abs(moved) <= np.array(limits.velocity) * (1 + 1e-9)).all()
        assert (np.abs(moved - velocity) <= np.array(limits.acceleration) * DT + 1e-6).all()
        # The tool turns no faster than its coordinates, and the executed step is what it did.
        _, angular = tool.twist(previous, target, DT)
        assert np.linalg.norm(angular) <= np.linalg.norm(moved[3:]) + 1e-6
        if task.action.is_delta:
            np.testing.assert_allclose(
                tool.add(previous, shaped.action.astype(np.float64)), target, atol=1e-6
            )
        previous, velocity = target, moved


def test_small_steps_pass_unchanged_and_compose() -> None:
    shaper = CommandShaper(task_of(low=[-0.1] * 6, high=[0.1] * 6))
    shaper.sync(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.4]))
    step = np.array([0.001, 0.0, 0.0, 0.01, 0.0, 0.0], dtype=np.float32)
    shaped = shaper.shape(step, DT)
    np.testing.assert_allclose(shaped.action, step, atol=1e-7)
    expected = Rotation.from_rotvec([0.01, 0, 0]) * Rotation.from_rotvec([0, 0, 0.4])
    np.testing.assert_allclose(shaped.target[3:], expected.as_rotvec(), atol=1e-7)
    assert not shaped.limited


def test_one_rotation_alone() -> None:
    task = task_of(names=["x", "y", "rz"], fixed_position={"z": 0.1})
    tool = task.action.coordinates
    turned = Rotation.from_rotvec([0.0, 0.0, 0.7]) * Rotation.from_quat(DOWN)
    values = decode_feedback(task, message([0.1, 0.2, 0.3], turned.as_quat()))
    np.testing.assert_allclose(values, [0.1, 0.2, 0.7], atol=1e-12)
    position, quaternion = tool.pose(tool.add(values, np.array([0.0, 0.01, 0.1])))
    np.testing.assert_allclose(position, [0.1, 0.21, 0.1])
    expected = Rotation.from_rotvec([0.0, 0.0, 0.8]) * Rotation.from_quat(DOWN)
    assert angle(Rotation.from_quat(quaternion), expected) < 1e-7


def test_position_spaces_keep_the_orientation_that_the_task_gives() -> None:
    tool = ToolCoordinates(["y", "x"], {"z": 0.02}, DOWN)
    position, quaternion = tool.pose(np.array([0.1, 0.2]))
    assert position.tolist() == [0.2, 0.1, 0.02] and quaternion.tolist() == DOWN


def test_the_policy_sees_orientations() -> None:
    data = task_of().model_dump(mode="json")
    data["observation"]["proprioception"] = [
        {"stream": "tool_pose", "field": "position", "names": ["z"]},
        {"stream": "tool_pose", "field": "rotation_6d", "names": ["xx", "xy", "xz", "yx", "yz"]},
        {"stream": "tool_pose", "field": "rotation_vector", "names": ["rz", "rx"]},
    ]
    data["observation"]["cloud"]["relative_to"] = []
    task = Task.model_validate(data)
    turned = Rotation.from_rotvec([0.3, 0.0, -0.2]) * Rotation.from_quat(DOWN)
    values = decode_proprioception(task, "tool_pose", message([0, 0, 0.5], turned.as_quat()))
    matrix = turned.as_matrix()
    expected = [0.5, *matrix[:, 0], matrix[0, 1], matrix[2, 1], -0.2, 0.3]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    with pytest.raises(ContractError, match=r"'tool_pose'.*not a unit quaternion"):
        decode_proprioception(task, "tool_pose", message([0, 0, 0.5], [0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"names": ["x", "rx", "ry"]}, "all of rx, ry, rz or one"),
        ({"quaternion_xyzw": [1.0, 1.0, 0.0, 0.0]}, "unit length"),
        ({"space": "delta_tool_position"}, "names of delta_tool_position are of x, y, z"),
        ({"feedback": "joint_states"}, "has type sensor_msgs/msg/JointState, not geometry_msgs"),
    ],
)
def test_mistakes_are_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        task_of(**change)


def test_limits_that_reach_half_a_turn_are_refused() -> None:
    data = task_of().model_dump(mode="json")
    data["limits"]["position_high"][3:] = [1.8, 1.8, 1.8]
    with pytest.raises(ValueError, match=r"3\.12 rad .* must stay below pi"):
        Task.model_validate(data)
    names = ["x", "y", "rz"]
    data = task_of(names=names).model_dump(mode="json")
    data["limits"]["position_high"][2] = 2.9
    Task.model_validate(data)


def test_fields_that_a_pose_does_not_have_are_refused() -> None:
    data = task_of().model_dump(mode="json")
    data["observation"]["proprioception"][1]["names"] = ["x", "roll"]
    with pytest.raises(ValueError, match="'roll' is not in position of the pose 'tool_pose'"):
        Task.model_validate(data)


def test_joints_have_no_orientation() -> None:
    data = task_of().model_dump(mode="json")
    data["observation"]["proprioception"][0]["field"] = "rotation_6d"
    with pytest.raises(ValueError, match=r"'joint_states', a .*JointState, has no rotation_6d"):
        Task.model_validate(data)


def test_how_targets_are_checked_is_not_part_of_the_hash() -> None:
    task = load_task("push")
    data = task.model_dump(mode="json")
    data["robot"] = {"urdf": "arm.urdf"}
    assert Task.model_validate(data).hash == task.hash
