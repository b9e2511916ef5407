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


@pytest.mark.parametrize("kind", [JointTrajectory, Float64MultiArray, PoseStamped, TwistStamped])
def test_a_command_of_each_type_moves_and_stops(graph: Graph, tmp_path: Path, kind: Any) -> None:
    data = TASK.model_dump(mode="json", exclude_none=True)
    package = kind.__module__.split(".")[0]
    data["action"]["command_type"] = f"{package}/msg/{kind.__name__}"
    by_joints, by_velocity = package in ("std_msgs", "trajectory_msgs"), kind is TwistStamped
    if by_joints:
        data["action"] |= {"space": "delta_joint_position", "names": JOINTS}
        data["action"] |= {"feedback": "joint_states", "fixed_position": {}}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(data))
    process = graph.start(
        "rl100_control.main", mode="policy", arming=False, task=tmp_path / "task.yaml"
    )
    feedback = graph.publisher(
        JointState if by_joints else PoseStamped, "/joint_states" if by_joints else "/tool_pose"
    )
    chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
    rewards = graph.publisher(RewardEvent, "/rl100/reward")
    commands = graph.record(kind, data["action"]["command"])
    executed = graph.record(ExecutedAction, "/rl100/executed_action")
    place, count = np.zeros(2), 0

    def follow() -> None:
        nonlocal place, count
        for command in commands[count:]:
            said = np.array(values_of(command))
            place = place + said * DT * 1e-9 if by_velocity else said
        count = len(commands)
        now = time.time_ns()
        msg = JointState(name=JOINTS, position=place.tolist()) if by_joints else PoseStamped()
        if not by_joints:
            msg.pose.position.x, msg.pose.position.y = place.tolist()
        msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(now)
        feedback.publish(msg)
        graph.spin(0.01)

    while not executed:
        follow()
    start, first = place, time.time_ns() + DT
    stamps = first + DT * np.arange(5, dtype=np.int64)
    actions = np.tile(np.float32(STEP), (5, 1))
    plan = Chunk(1, "policy", "v1", first - DT, stamps, actions, int(stamps[-1]) + DT)
    chunks.publish(fill_message(ActionChunk(), plan, "base_link", Time))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        follow()
    moved = sum(not tick.hold for tick in executed)
    assert moved >= 4
    np.testing.assert_allclose(place - start, moved * np.array(STEP), atol=1e-5)
    if by_velocity:
        fastest = np.abs([values_of(command) for command in commands]).max()
        assert fastest == pytest.approx(0.01 / (DT * 1e-9), abs=1e-4)

    rewards.publish(RewardEvent(kind=RewardEvent.STOP, labeller="keyboard"))
    graph.wait(lambda: executed[-1].mode == ExecutedAction.MODE_STOPPED, "the stop")
    follow()
    resting = values_of(commands[-1])
    for _ in range(20):
        follow()
    assert all(values_of(command) == resting for command in commands[-5:])
    if by_velocity:
        assert resting == [0.0, 0.0]
    graph.stop(process)
    graph.wait(lambda: executed[-1].reason == "the gateway ends", "the last hold of the process")
    assert values_of(commands[-1]) == resting
