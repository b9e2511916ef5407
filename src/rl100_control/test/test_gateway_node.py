"""The gateway as a process: chunk in, command out; stale feedback and a stop hold; in lockstep one
command for each tick with the tick's stamp, and a hold when no chunk comes; a clean end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import PointCloud2

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.task import load_task
from rl100_msgs.msg import ActionChunk, ExecutedAction, RewardEvent
from rl100_msgs.srv import SetMode
from rl100_node.testing import Graph

pytestmark = pytest.mark.integration

TASK = load_task("push")
DT = TASK.control.period_ns


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def pose(stamp_ns: int, x: float, y: float) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = split_ns(stamp_ns)
    message.pose.position.x, message.pose.position.y = x, y
    return message


def chunk(sequence: int, start_ns: int, actions: list[list[float]]) -> ActionChunk:
    stamps = start_ns + DT * np.arange(len(actions), dtype=np.int64)
    values = np.asarray(actions, dtype=np.float32)
    plan = Chunk(sequence, "policy", "v1", start_ns, stamps, values, int(stamps[-1]) + 10**9)
    return fill_message(ActionChunk(), plan, "base_link", Time)


def test_real_time_chunk_in_command_out_then_stale_feedback_and_stop_hold(graph: Graph) -> None:
    process = graph.start("rl100_control.main", mode="policy", arming=False)
    feedback = graph.publisher(PoseStamped, "/tool_pose")
    chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
    rewards = graph.publisher(RewardEvent, "/rl100/reward")
    commands = graph.record(PoseStamped, "/tool_target")
    executed = graph.record(ExecutedAction, "/rl100/executed_action")
    graph.spin(0.3)
    assert not commands, "a command left before the robot's position was known"

    def follow() -> None:
        here = commands[-1].pose.position if commands else None
        x, y = (here.x, here.y) if here else (0.1, 0.05)
        feedback.publish(pose(time.time_ns(), x, y))
        graph.spin(0.02)

    while not commands:
        follow()
    assert (commands[0].pose.position.x, commands[0].pose.position.y) == (0.1, 0.05)
    assert commands[0].pose.position.z == TASK.action.fixed_position["z"]
    assert commands[0].header.frame_id == "base_link"

    start = len(executed)
    chunks.publish(chunk(1, time.time_ns() + DT, [[0.004, -0.002]] * 4))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        follow()
    moved = [message for message in executed[start:] if not message.hold]
    assert 3 <= len(moved) <= 4
    for message in moved:
        assert list(message.raw_action) == list(message.action) == list(np.float32([4e-3, -2e-3]))
        assert message.chunk_sequence == 1 and message.source == "policy"
    assert commands[-1].pose.position.x == pytest.approx(0.1 + 0.004 * len(moved), abs=1e-6)

    graph.wait(lambda: "no feedback" in executed[-1].reason, "a hold for stale feedback")
    follow()
    rewards.publish(RewardEvent(kind=RewardEvent.STOP, labeller="keyboard"))
    graph.wait(lambda: executed[-1].mode == ExecutedAction.MODE_STOPPED, "the stop")
    refused = graph.call(SetMode, "/rl100_gateway/set_mode", mode=ExecutedAction.MODE_POLICY)
    assert not refused.accepted and "clear_stop" in refused.message
    accepted = graph.call(
        SetMode, "/rl100_gateway/set_mode", mode=ExecutedAction.MODE_POLICY, clear_stop=True
    )
    assert accepted.accepted and accepted.mode == ExecutedAction.MODE_POLICY
    # Before its first tick it has nothing to end: idle right after that would send no last hold.
    graph.wait(lambda: executed[-1].mode == ExecutedAction.MODE_POLICY, "a tick after the stop")

    # A robot that follows velocities would drive on with the last one.
    idle = graph.call(SetMode, "/rl100_gateway/set_mode", mode=ExecutedAction.MODE_IDLE)
    assert idle.accepted and idle.mode == ExecutedAction.MODE_IDLE
    graph.wait(lambda: "idle from now on" in executed[-1].reason, "the last hold")
    assert executed[-1].hold and executed[-1].sent
    graph.spin(0.2)
    count = len(commands)
    for _ in range(5):
        follow()
    assert len(commands) == count, "something was sent in idle"
    back = graph.call(SetMode, "/rl100_gateway/set_mode", mode=ExecutedAction.MODE_POLICY)
    assert back.accepted
    while len(commands) == count:
        follow()
    graph.stop(process)
    graph.wait(lambda: executed[-1].reason == "the gateway ends", "the last hold of the process")


def test_lockstep_one_command_for_each_tick_with_its_stamp(graph: Graph) -> None:
    process = graph.start("rl100_control.main", mode="policy", lockstep=True, lockstep_timeout_s=1)
    feedback = graph.publisher(PoseStamped, "/tool_pose")
    clouds = graph.publisher(PointCloud2, TASK.streams["points"].topic)
    chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
    commands = graph.record(PoseStamped, "/tool_target")
    executed = graph.record(ExecutedAction, "/rl100/executed_action")
    start = 5 * 10**9
    actions = [[0.004, -0.002], [0.003, 0.001], [0.001, 0.001], [0.0, 0.002]]

    def tick(now: int, x: float, y: float) -> None:
        feedback.publish(pose(now, x, y))
        cloud = PointCloud2()
        cloud.header.stamp.sec, cloud.header.stamp.nanosec = split_ns(now)
        clouds.publish(cloud)

    x = y = 0.0
    for i, action in enumerate(actions):
        now = start + i * DT
        tick(now, x, y)
        if i == 0:
            graph.spin(0.2)
            assert not commands, "the tick did not wait for its chunk"
            chunks.publish(chunk(1, now, actions))
        graph.wait(lambda count=i + 1: len(commands) == len(executed) == count, "a command")
        x, y = commands[-1].pose.position.x, commands[-1].pose.position.y
        assert message_stamp_ns(commands[-1]) == message_stamp_ns(executed[-1]) == now
        assert list(executed[-1].action) == list(np.float32(action))
        assert executed[-1].chunk_index == i and not executed[-1].limited

    tick(start + 4 * DT, x, y)
    graph.wait(lambda: len(commands) == len(executed) == 5, "a hold after the time-out")
    assert executed[-1].hold and executed[-1].reason == "no action is due"
    assert message_stamp_ns(commands[-1]) == start + 4 * DT
    assert (commands[-1].pose.position.x, commands[-1].pose.position.y) == (x, y)
    graph.stop(process, signal.SIGTERM)


def test_a_wrong_mode_is_one_sentence(graph: Graph) -> None:
    process = graph.start("rl100_control.main", mode="fly")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "parameter mode of rl100_gateway is 'fly': choose one of" in output
    assert "Traceback" not in output
