"""The gateway as a process with the example arm: a target that the arm cannot do is not sent.

Pins: steps that turn the tool arrive as poses; at a joint's limit the robot holds, the sentence is
in the executed action and in the diagnostics, and the way back is free without a restart; a task
whose URDF is missing ends with one sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")
pytest.importorskip("pinocchio")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.decode import split_ns
from rl100_contracts.task import load_task
from rl100_control.robot_model import RobotModel
from rl100_msgs.msg import ActionChunk, ExecutedAction
from rl100_node.testing import PATIENCE_S, Graph

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
HOME = np.array([0.0, 0.2, 1.2, 0.0, np.pi - 1.4, 0.0])


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """The example with a flange that turns by 0.15 rad only."""
    text = (EXAMPLES / "arm6.urdf").read_text()
    head, tail = text.rsplit('lower="-3.0" upper="3.0"', 1)
    (tmp_path / "arm6.urdf").write_text(f'{head}lower="-0.15" upper="0.15"{tail}')
    (tmp_path / "arm6.srdf").write_text((EXAMPLES / "arm6.srdf").read_text())
    path = tmp_path / "arm.yaml"
    path.write_text((EXAMPLES / "arm6_pose.yaml").read_text())
    return path


class Arm:
    """A robot that is where it was told to be, or stays."""

    def __init__(self, graph: Graph, task_file: Path) -> None:
        self.graph, self.task = graph, load_task(task_file)
        self.model, self.joints = RobotModel(self.task, task_file.parent), HOME
        self.joint_states = graph.publisher(JointState, "/joint_states")
        self.feedback = graph.publisher(PoseStamped, "/tool_pose")
        self.chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
        self.commands = graph.record(PoseStamped, "/tool_target")
        self.executed = graph.record(ExecutedAction, "/rl100/executed_action")
        self.diagnostics = graph.record(DiagnosticArray, "/diagnostics")
        self._sequence, self._next = 0, 0.0
        self.alive = True  # the joint states

    def follow(self) -> None:
        if self.commands:
            pose = self.commands[-1].pose
            p, q = pose.position, pose.orientation
            found = self.model.inverse(
                np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]), self.joints
            )
            assert found is not None
            self.joints = found
        now = time.time_ns()
        states = JointState(name=list(self.task.joint_names), position=self.joints.tolist())
        pose = PoseStamped()
        position, quaternion = self.model.forward(self.joints)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = position.tolist()
        for axis, value in zip("xyzw", quaternion.tolist(), strict=True):
            setattr(pose.pose.orientation, axis, value)
        for message in (states, pose):
            message.header.stamp.sec, message.header.stamp.nanosec = split_ns(now)
        if self.alive:
            self.joint_states.publish(states)
        self.feedback.publish(pose)
        self.graph.spin(0.01)

    def turn(self, rz: float, until: Callable[[], bool], what: str) -> None:
        """Ask for turns about the base's z axis, chunk after chunk, until a condition holds."""
        action = np.array([0, 0, 0, 0, 0, rz], dtype=np.float32)
        period, end = self.task.control.period_ns, time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < end, f"waited in vain for {what}"
            if time.monotonic() >= self._next:
                self._next, self._sequence = time.monotonic() + 0.1, self._sequence + 1
                now = time.time_ns()
                stamps = now + period * np.arange(1, 11, dtype=np.int64)
                expires = int(stamps[-1]) + period
                plan = Chunk(
                    self._sequence, "policy", "v1", now, stamps, np.tile(action, (10, 1)), expires
                )
                self.chunks.publish(fill_message(ActionChunk(), plan, "base_link", Time))
            self.follow()


def test_a_target_beyond_a_joint_limit_holds_and_the_way_back_is_free(
    graph: Graph, task_file: Path
) -> None:
    process = graph.start("rl100_control.main", mode="policy", arming=False, task=task_file)
    arm = Arm(graph, task_file)
    while not arm.commands:
        arm.follow()

    def refused() -> bool:
        return bool(arm.executed) and "joint 'joint_6' would be at" in arm.executed[-1].reason

    arm.turn(0.01, refused, "a refusal")
    assert arm.executed[-1].hold and "limit of" in arm.executed[-1].reason
    moved = [message for message in arm.executed if not message.hold]
    assert len(moved) > 5, "nothing moved before the limit"
    for _ in range(20):
        arm.follow()

    def reported() -> bool:
        texts = [status.message for array in arm.diagnostics for status in array.status]
        return any("holding: joint 'joint_6' would be at" in text for text in texts)

    arm.turn(0.01, reported, "the sentence in the diagnostics")
    keys = {v.key: v.value for a in arm.diagnostics for s in a.status for v in s.values}
    assert keys["checks by kinematics"] == "6 joints, 19 pairs of links"
    # However long they went on asking.
    assert 0.1 < abs(arm.joints[5]) <= 0.15 + 1e-3

    start = len(arm.executed)
    back = abs(arm.joints[5])
    arm.turn(-0.01, lambda: abs(arm.joints[5]) < 0.5 * back, "the way back")
    assert sum(not message.hold for message in arm.executed[start:]) > 3
    graph.stop(process)


def test_joint_states_that_stop_hold_until_they_come_again(graph: Graph, task_file: Path) -> None:
    process = graph.start("rl100_control.main", mode="policy", arming=False, task=task_file)
    arm = Arm(graph, task_file)
    while not arm.commands:
        arm.follow()

    def moving() -> bool:
        return not arm.executed[-1].hold

    arm.turn(0.001, moving, "motion")
    arm.alive = False
    arm.turn(
        0.001,
        lambda: "no joint states on /joint_states for more than" in arm.executed[-1].reason,
        "a hold without joint states",
    )
    start = len(arm.executed)
    for _ in range(20):
        arm.follow()
    assert all(message.hold for message in arm.executed[start:])
    arm.alive = True
    arm.turn(0.001, moving, "motion again")
    graph.stop(process)


def test_a_missing_urdf_is_one_sentence(graph: Graph, task_file: Path) -> None:
    data = yaml.safe_load(task_file.read_text())
    data["robot"]["urdf"] = "other.urdf"
    task_file.write_text(yaml.safe_dump(data))
    process = graph.start("rl100_control.main", task=task_file)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"robot.urdf: {task_file.parent / 'other.urdf'}: no such file" in output
    assert "Traceback" not in output
