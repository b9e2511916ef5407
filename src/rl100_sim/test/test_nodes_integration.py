"""Pins the nodes as real processes: lockstep repeats bit by bit, real time moves and holds,
the scripted session ends in a verdict, and every node stops cleanly.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402

from rl100_contracts.motion import CommandShaper  # noqa: E402
from rl100_contracts.task import Task, load_task  # noqa: E402
from rl100_msgs.msg import ActionChunk, RewardEvent, SimState  # noqa: E402
from rl100_msgs.srv import ResetWorld  # noqa: E402
from rl100_node.discovery import introduce  # noqa: E402
from rl100_node.testing import end_processes  # noqa: E402

pytestmark = pytest.mark.integration

DEPTH = 200
PATIENCE_S = 40.0
TOPICS: dict[str, Any] = {
    "/clock": Clock,
    "/joint_states": JointState,
    "/tool_pose": PoseStamped,
    "/camera/depth/image_rect_raw": Image,
    "/camera/depth/camera_info": CameraInfo,
    "/sim/ground_truth": SimState,
}


def stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


class Graph:
    """A node of this test, and the processes that it talks to, on a domain of their own."""

    def __init__(self) -> None:
        self.domain = int(os.environ["ROS_DOMAIN_ID"])
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("test_commander", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.commands = self.node.create_publisher(PoseStamped, "/tool_target", DEPTH)
        self.reset_client = self.node.create_client(ResetWorld, "/rl100_sim/reset")
        self.raw: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, module: str, **parameters: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"rl100_sim.{module}", "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "ROS_DOMAIN_ID": str(self.domain)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def listen(self) -> None:
        """Keep every message of the simulator as it came over the wire."""
        for topic, kind in TOPICS.items():
            self.node.create_subscription(kind, topic, self.raw[topic].append, DEPTH, raw=True)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            self.executor.spin_once(timeout_sec=0.05)
            assert time.monotonic() < end, f"never happened: {what}"

    def discover(self, topics: list[str]) -> None:
        """Wait until the commands have a reader and each topic its writer."""
        self.until(self.reset_client.service_is_ready, "the reset service")
        self.until(lambda: self.commands.get_subscription_count() > 0, "a reader of commands")
        for topic in topics:
            self.until(lambda t=topic: self.node.count_publishers(t) > 0, f"a writer of {topic}")
        missing = introduce(self.node, [*topics, "/tool_target"], self._spin_once, PATIENCE_S)
        assert not missing, missing

    def _spin_once(self, seconds: float) -> None:
        self.executor.spin_once(timeout_sec=seconds)

    def reset(self, seed: int) -> Any:
        future = self.reset_client.call_async(ResetWorld.Request(seed=seed))
        self.until(future.done, "the answer to a reset")
        return future.result()

    def command(self, at: Any, x: float, y: float) -> None:
        message = PoseStamped()
        message.header.stamp = at
        message.header.frame_id = "base_link"
        message.pose.position.x, message.pose.position.y = x, y
        self.commands.publish(message)

    def close(self) -> None:
        end_processes(self.processes)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


def _lockstep_run(seeds: list[int]) -> dict[str, str]:
    """Drive a fresh simulator through episodes; per topic, the digest of all of its bytes."""
    graph = Graph()
    try:
        graph.start("sim_node", lockstep=True)
        graph.listen()
        graph.discover(list(TOPICS))
        ticks = 0
        for seed in seeds:
            rng = np.random.default_rng(seed)
            graph.reset(seed)
            ticks += 1
            for _ in range(20):
                graph.until(
                    lambda n=ticks: all(len(got) == n for got in graph.raw.values()), "a whole tick"
                )
                pose = deserialize_message(graph.raw["/tool_pose"][-1], PoseStamped)
                step = rng.uniform(-0.03, 0.03, 2)
                position = pose.pose.position
                graph.command(pose.header.stamp, position.x + step[0], position.y + step[1])
                ticks += 1
            graph.until(
                lambda n=ticks: all(len(got) == n for got in graph.raw.values()), "the last tick"
            )
        return {
            topic: hashlib.sha256(b"".join(got)).hexdigest() for topic, got in graph.raw.items()
        }
    finally:
        graph.close()


def test_lockstep_repeats_bit_by_bit_in_a_fresh_process() -> None:
    first = _lockstep_run([3, 4])
    assert _lockstep_run([3, 4]) == first
    assert _lockstep_run([4, 3])["/tool_pose"] != first["/tool_pose"]


def test_lockstep_waits_for_the_command_of_its_tick_and_reset_jumps_the_clock(graph: Graph) -> None:
    graph.start("sim_node", lockstep=True)
    graph.listen()
    graph.discover(list(TOPICS))
    poses = graph.raw["/tool_pose"]
    assert poses == []  # nothing before the first reset
    answer = graph.reset(1)
    graph.until(lambda: len(poses) == 1, "the first tick")
    first = deserialize_message(poses[0], PoseStamped)
    assert answer.success and answer.stamp == first.header.stamp
    assert {len(heard) for heard in graph.raw.values()} <= {0, 1}
    wrong = PoseStamped().header.stamp
    graph.command(wrong, 0.0, 0.0)
    graph.command(first.header.stamp, float("nan"), 0.0)  # refused, but it's the tick's command
    graph.until(lambda: len(poses) == 2, "the second tick")
    second = deserialize_message(poses[1], PoseStamped)
    assert stamp(second) - stamp(first) == 50_000_000
    graph.reset(1)
    graph.until(lambda: len(poses) == 3, "the first tick after a reset")
    third = deserialize_message(poses[2], PoseStamped)
    assert stamp(third) - stamp(second) >= 1_000_000_000
    # Noise belongs to the seed and the tick, so the same start is seen in the same way.
    assert third.pose == first.pose


class _Gateway:
    """The least that a command gateway does: limit the action of a tick, send the target."""

    def __init__(self, graph: Graph, task: Task) -> None:
        self._graph, self._shaper = graph, CommandShaper(task)
        self._poses: dict[int, PoseStamped] = {}
        self._chunks: dict[int, ActionChunk] = {}
        self._last = -(10**12)
        node = graph.node
        node.create_subscription(PoseStamped, "/tool_pose", self._on_pose, DEPTH)
        node.create_subscription(ActionChunk, "/rl100/teleop_chunk", self._on_chunk, DEPTH)

    def _on_pose(self, message: PoseStamped) -> None:
        self._poses[stamp(message)] = message
        self._go(stamp(message))

    def _on_chunk(self, message: ActionChunk) -> None:
        at = message.action_stamps[0]
        key = at.sec * 10**9 + at.nanosec
        assert key == stamp(message)
        self._chunks[key] = message
        self._go(key)

    def _go(self, key: int) -> None:
        if key not in self._poses or key not in self._chunks:
            return
        pose = self._poses[key]
        if key - self._last > 900_000_000:
            self._shaper.sync(np.array([pose.pose.position.x, pose.pose.position.y]))
        self._last = key
        shaped = self._shaper.shape(np.asarray(self._chunks[key].actions), 0.05)
        self._graph.command(pose.header.stamp, float(shaped.target[0]), float(shaped.target[1]))


@pytest.mark.parametrize(
    ("noise", "kind", "value"),
    [(0.0, RewardEvent.SUCCESS, 1.0), (5.0, RewardEvent.FAILURE, 0.0)],
)
def test_scripted_session_ends_with_one_verdict_per_episode(
    graph: Graph, noise: float, kind: int, value: float
) -> None:
    task = load_task("push")
    graph.start("sim_node", lockstep=True)
    graph.start("scripted_teleop_node", noise=noise)
    graph.start("scripted_labeller_node")
    _Gateway(graph, task)
    truths: list[SimState] = []
    verdicts: list[RewardEvent] = []
    graph.node.create_subscription(SimState, "/sim/ground_truth", truths.append, DEPTH)
    graph.node.create_subscription(RewardEvent, "/rl100/reward", verdicts.append, DEPTH)
    graph.discover(["/sim/ground_truth", "/rl100/teleop_chunk", "/rl100/reward"])
    graph.until(lambda: graph.node.count_subscribers("/sim/ground_truth") == 3, "all listeners")
    # The nodes among themselves may not have found each other: then an episode stands still.
    end = time.monotonic() + PATIENCE_S
    while not (verdicts and truths and truths[-1].done):
        assert time.monotonic() < end, "no first verdict came"
        graph.reset(99)
        again = time.monotonic() + 10.0
        graph.until(
            lambda t=again: bool(verdicts and truths[-1].done) or time.monotonic() > t,
            "the first verdict",
        )
    verdicts.clear()
    for episode, seed in enumerate([11, 12]):
        graph.reset(seed)
        graph.until(lambda n=episode: len(verdicts) > n, "a verdict")
        graph.until(lambda s=seed: truths[-1].seed == s and truths[-1].done, "the last tick")
        end, verdict = truths[-1], verdicts[-1]
        assert (verdict.kind, verdict.value, verdict.labeller) == (kind, value, "scripted")
        assert stamp(verdict) == stamp(end) and end.seed == seed
        assert end.success == (kind == RewardEvent.SUCCESS)
        assert end.success or end.step == task.episode.max_steps
    assert len(verdicts) == 2


def test_real_time_follows_commands_and_holds_without_them(graph: Graph) -> None:
    graph.start("sim_node", seed=3)
    graph.listen()
    graph.discover([t for t in TOPICS if t != "/clock"])
    poses = graph.raw["/tool_pose"]
    graph.until(lambda: len(poses) > 5, "tool poses")
    before = deserialize_message(poses[-1], PoseStamped)
    x, y = before.pose.position.x, before.pose.position.y
    goal = x + (0.05 if x < -0.1 else -0.05)

    def reached() -> bool:
        graph.command(before.header.stamp, goal, y)
        return abs(deserialize_message(poses[-1], PoseStamped).pose.position.x - goal) < 0.004

    graph.until(reached, "the tool at its target")
    count = len(poses)
    graph.until(lambda: len(poses) > count + 60, "feedback without commands")
    after = deserialize_message(poses[-1], PoseStamped)
    assert after.pose.position.x == pytest.approx(goal, abs=0.01)
    stamps = [stamp(deserialize_message(raw, PoseStamped)) for raw in poses]
    assert (np.diff(stamps) > 0).all()
    assert abs(stamps[-1] - time.time_ns()) < 5 * 10**9
    image = deserialize_message(graph.raw["/camera/depth/image_rect_raw"][-1], Image)
    assert (image.encoding, image.height, image.width, image.step) == ("16UC1", 96, 128, 256)
    assert np.count_nonzero(np.frombuffer(image.data, "<u2")) > 0.9 * 96 * 128
    assert graph.raw["/clock"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["sim_node", "scripted_teleop_node", "scripted_labeller_node"])
def test_nodes_stop_cleanly(graph: Graph, module: str, number: signal.Signals) -> None:
    name = {"sim_node": "rl100_sim"}.get(module, "rl100_" + module.removesuffix("_node"))
    process = graph.start(module)
    graph.until(lambda: name in graph.node.get_node_names(), f"node {name}")
    end = time.monotonic() + 0.5
    graph.until(lambda: time.monotonic() > end, "half a second")
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_an_unknown_task_is_one_sentence_and_a_failure(graph: Graph) -> None:
    process = graph.start("sim_node", task="nonsense")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "nonsense" in output and "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


def test_lockstep_without_commands_is_one_clear_warning(graph: Graph) -> None:
    process = graph.start("sim_node", lockstep=True, lockstep_timeout_s=0.2)
    graph.until(graph.reset_client.service_is_ready, "the reset service")
    graph.reset(1)
    end = time.monotonic() + 4.0
    graph.until(lambda: time.monotonic() > end, "a few checks")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert output.count("lockstep: no command with stamp") == 1
    assert "/tool_target" in output and "gateway" in output


def test_colour_is_published_when_asked_for(graph: Graph) -> None:
    images: list[Image] = []
    graph.node.create_subscription(Image, "/camera/color/image_raw", images.append, DEPTH)
    graph.start("sim_node", rgb=True)
    graph.until(graph.reset_client.service_is_ready, "the reset service")
    graph.until(lambda: len(images) > 0, "a colour image")
    image = images[0]
    assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 96, 128, 384)
    assert len(image.data) == 96 * 384 and np.std(image.data) > 5.0
