"""Each type of command through a real gateway: it moves, a stop ends it, and nothing else is sent.

Pins: JointTrajectory, Float64MultiArray, PoseStamped and TwistStamped arrive as the task asks for
them, keep the limits, stand still after a stop, and end with a standstill when the process ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.decode import split_ns
from rl100_contracts.task import load_task
from rl100_msgs.msg import ActionChunk, ExecutedAction, RewardEvent
from rl100_node.testing import Graph

pytestmark = pytest.mark.integration

TASK = load_task("push")
DT = TASK.control.period_ns
JOINTS = ["shoulder_joint", "elbow_joint"]
STEP = [0.01, -0.004]


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def values_of(msg: Any) -> list[float]:
    """What a command says of the two axes: their target, or their velocity."""
    if isinstance(msg, JointTrajectory):
        (point,) = msg.points
        assert msg.joint_names == JOINTS and point.time_from_start.nanosec == DT
        return list(point.positions)
    if isinstance(msg, Float64MultiArray):
        return list(msg.data)
    xyz = msg.twist.linear if isinstance(msg, TwistStamped) else msg.pose.position
    return [xyz.x, xyz.y]


FAILING = """
from rl100_control.gateway import Gateway
from rl100_control.main import main

decide, ticks = Gateway._decide, []

def fails_at_last(self, *arguments):
    ticks.append(decide(self, *arguments))
    if sum(not tick.hold for tick in ticks) > 3:
        raise RuntimeError("a bug")
    return ticks[-1]

Gateway._decide = fails_at_last
main()
"""


class Robot:
    """A gateway whose commands are of one type, and a robot that follows them."""

    def __init__(self, graph: Graph, folder: Path, kind: Any, code: str = "") -> None:
        self.graph = graph
        data = TASK.model_dump(mode="json", exclude_none=True)
        package = kind.__module__.split(".")[0]
        data["action"]["command_type"] = f"{package}/msg/{kind.__name__}"
        self.by_joints = package in ("std_msgs", "trajectory_msgs")
        self.by_velocity = kind is TwistStamped
        if self.by_joints:
            data["action"] |= {"space": "delta_joint_position", "names": JOINTS}
            data["action"] |= {"feedback": "joint_states", "fixed_position": {}}
        path = folder / "task.yaml"
        path.write_text(yaml.safe_dump(data))
        self.process = graph.start(
            "rl100_control.main", code=code, mode="policy", arming=False, task=path
        )
        topic = "/joint_states" if self.by_joints else "/tool_pose"
        self.feedback = graph.publisher(JointState if self.by_joints else PoseStamped, topic)
        self.chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
        self.commands = graph.record(kind, data["action"]["command"])
        self.executed = graph.record(ExecutedAction, "/rl100/executed_action")
        self.place, self._count = np.zeros(2), 0

    def follow(self) -> None:
        """Do what was told, and say where that led to."""
        for command in self.commands[self._count :]:
            said = np.array(values_of(command))
            self.place = self.place + said * DT * 1e-9 if self.by_velocity else said
        self._count = len(self.commands)
        x, y = self.place.tolist()
        msg: Any = JointState(name=JOINTS, position=[x, y]) if self.by_joints else PoseStamped()
        if not self.by_joints:
            msg.pose.position.x, msg.pose.position.y = x, y
        msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(time.time_ns())
        self.feedback.publish(msg)
        self.graph.spin(0.01)

    def plan(self, count: int) -> None:
        first = time.time_ns() + DT
        stamps = first + DT * np.arange(count, dtype=np.int64)
        actions = np.tile(np.float32(STEP), (count, 1))
        plan = Chunk(1, "policy", "v1", first - DT, stamps, actions, int(stamps[-1]) + DT)
        self.chunks.publish(fill_message(ActionChunk(), plan, "base_link", Time))


@pytest.mark.parametrize("kind", [JointTrajectory, Float64MultiArray, PoseStamped, TwistStamped])
def test_a_command_of_each_type_moves_and_stops(graph: Graph, tmp_path: Path, kind: Any) -> None:
    robot = Robot(graph, tmp_path, kind)
    rewards = graph.publisher(RewardEvent, "/rl100/reward")
    while not robot.executed:
        robot.follow()
    start = robot.place
    robot.plan(5)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        robot.follow()
    moved = sum(not tick.hold for tick in robot.executed)
    assert moved >= 4
    np.testing.assert_allclose(robot.place - start, moved * np.array(STEP), atol=1e-5)
    if robot.by_velocity:
        fastest = np.abs([values_of(command) for command in robot.commands]).max()
        assert fastest == pytest.approx(0.01 / (DT * 1e-9), abs=1e-4)

    rewards.publish(RewardEvent(kind=RewardEvent.STOP, labeller="keyboard"))
    graph.wait(lambda: robot.executed[-1].mode == ExecutedAction.MODE_STOPPED, "the stop")
    robot.follow()
    resting = values_of(robot.commands[-1])
    for _ in range(20):
        robot.follow()
    assert all(values_of(command) == resting for command in robot.commands[-5:])
    if robot.by_velocity:
        assert resting == [0.0, 0.0]
    graph.stop(robot.process)
    graph.wait(lambda: robot.executed[-1].reason == "the gateway ends", "the last hold")
    assert values_of(robot.commands[-1]) == resting


def test_a_control_loop_that_fails_ends_the_last_velocity(graph: Graph, tmp_path: Path) -> None:
    robot = Robot(graph, tmp_path, TwistStamped, FAILING)
    while not robot.executed:
        robot.follow()
    robot.plan(20)
    end = time.monotonic() + 10.0
    while robot.executed[-1].reason != "the control loop failed" and time.monotonic() < end:
        robot.follow()
    assert robot.executed[-1].reason == "the control loop failed"
    speeds = [values_of(command) for command in robot.commands]
    assert speeds[-1] == [0.0, 0.0] and any(speed != [0.0, 0.0] for speed in speeds[-4:-1])
    output, _ = robot.process.communicate(timeout=20)
    assert robot.process.returncode != 0 and "a bug" in output
