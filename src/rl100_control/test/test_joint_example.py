"""The example of a task of joints, to copy: it loads, and the gateway moves such an arm.

Pins: its commands; the sentences of a gateway whose feedback is missing name topic and joint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from rl100_contracts.decode import split_ns
from rl100_contracts.task import load_task
from rl100_control.gateway import Gateway
from rl100_control.outgoing import COMMANDS
from rl100_control.testing import DT, T0, chunk, settle
from rl100_control.tick import Mode
from rl100_msgs.msg import GatewayStatus
from rl100_node.qos import latched_qos
from rl100_node.testing import Graph

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "arm6_joints.yaml"
JOINTS = [f"joint_{i}" for i in range(1, 7)]


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def test_the_example_commands_a_trajectory_of_its_joints() -> None:
    task = load_task(EXAMPLE)
    made = Gateway(task, Mode.POLICY, lockstep=True)
    settle(made, T0, np.zeros(6))
    assert made.on_chunk(chunk(1, T0, [[0.001] * 6]), T0, teleop=False) == ""
    tick = made.tick(T0)
    assert tick is not None and not tick.hold
    command = COMMANDS[task.action.command_type](task, tick)
    assert isinstance(command, JointTrajectory) and command.joint_names == JOINTS
    (point,) = command.points
    np.testing.assert_allclose(point.positions, [0.001] * 6, atol=1e-8)
    assert point.time_from_start.nanosec == DT


@pytest.mark.integration
def test_missing_feedback_names_its_topic_and_the_joint_that_is_not_in_it(
    graph: Graph, tmp_path: Path
) -> None:
    path = tmp_path / "task.yaml"
    lines = EXAMPLE.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("robot:")))
    statuses: list[GatewayStatus] = []
    graph.node.create_subscription(
        GatewayStatus, "/rl100/gateway_status", statuses.append, latched_qos()
    )
    graph.start("rl100_control.main", mode="teleop", task=path)
    said = graph.record(DiagnosticArray, "/diagnostics")
    states = graph.publisher(JointState, "/joint_states")
    graph.wait(lambda: bool(statuses), "a status")
    assert statuses[-1].reason == "no feedback on /joint_states yet"

    def publish(names: list[str]) -> None:
        msg = JointState(name=names, position=[0.0] * len(names))
        msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(time.time_ns())
        states.publish(msg)
        graph.spin(0.02)

    def message() -> str:
        return str(said[-1].status[0].message) if said else ""

    end, wanted = time.monotonic() + 20.0, "joint 'joint_6' is not in the JointState"
    while wanted not in message() and time.monotonic() < end:
        publish(JOINTS[:-1])
    assert message() == (
        "holding: no feedback on /joint_states yet; joint 'joint_6' is not in the JointState on "
        "/joint_states: it has joint_1, joint_2, joint_3, joint_4, joint_5"
    )
    while "no action is due" not in message() and time.monotonic() < end + 20.0:
        publish(JOINTS)
    graph.wait(
        lambda: statuses[-1].reason == "no feedback on /joint_states for more than 0.2 s", "silence"
    )
