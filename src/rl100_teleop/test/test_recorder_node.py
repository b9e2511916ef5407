"""Pins the recorder as a process: what it records from another process is whole and labelled, it
names a missing topic, waits for publishers that have not found it, ends cleanly on signals with
the episode kept, and survives kill -9.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs.msg")

from rl100_contracts.episode import (  # noqa: E402
    EpisodeReader,
    Outcome,
    list_episodes,
    load_episode_info,
    unfinished_episodes,
)
from rl100_contracts.streams import Role  # noqa: E402
from rl100_contracts.task import NANOSECONDS, load_task  # noqa: E402
from rl100_msgs.msg import EpisodeEvent, RewardEvent  # noqa: E402
from rl100_msgs.srv import StartEpisode, StopEpisode  # noqa: E402
from rl100_node.qos import command_qos, episode_qos  # noqa: E402
from rl100_node.testing import end_processes  # noqa: E402
from rl100_teleop.recorder.publishers import Publishers  # noqa: E402

pytestmark = pytest.mark.integration

ROBOT = Path(__file__).with_name("fake_robot.py")
RECORDER = "from rl100_teleop.recorder.main import main; main()"
TASK = load_task("push")
RATED = {name for name, s in TASK.streams.items() if s.role is not Role.EVENT}


class Graph:
    """The test's own node, and the processes that it started."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.events: list[EpisodeEvent] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.node = rclpy.create_node("test_operator")
        self.node.create_subscription(
            EpisodeEvent, "/rl100/episode", self.events.append, episode_qos()
        )
        self.rewards = self.node.create_publisher(RewardEvent, "/rl100/reward", command_qos())
        self.start_client = self.node.create_client(StartEpisode, "/rl100/episode/start")
        self.stop_client = self.node.create_client(StopEpisode, "/rl100/episode/stop")

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def robot(self, *options: str) -> subprocess.Popen[str]:
        return self.spawn(str(ROBOT), *options)

    def recorder(self, **parameters: object) -> subprocess.Popen[str]:
        values = {"data": self.data, "gate_timeout_s": 20.0, **parameters}
        arguments = [part for k, v in values.items() for part in ("-p", f"{k}:={v}")]
        process = self.spawn("-c", RECORDER, "--ros-args", *arguments)
        # A killed recorder's service stays visible for some seconds: ask until this one answers.
        for _ in range(30):
            future = self.stop_client.call_async(StopEpisode.Request())
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=2.0)
            if future.done():
                break
        assert self.start_client.wait_for_service(30.0)
        return process

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self.until(future.done, "a service")
        return future.result()

    def start(self, **request: object) -> str:
        response = self.call(self.start_client, StartEpisode.Request(**request))
        assert response.started, response.message
        return str(response.episode_id)

    def ended(self, name: str) -> EpisodeEvent:
        def found() -> list[EpisodeEvent]:
            return [e for e in self.events if e.event == e.ENDED and e.episode_id == name]

        self.until(lambda: bool(found()), f"the end of {name}")
        return found()[0]

    def label(self, kind: int) -> int:
        event = RewardEvent(kind=kind, value=1.0, labeller="test")
        event.header.stamp = self.node.get_clock().now().to_msg()
        self.until(lambda: self.rewards.get_subscription_count() > 0, "the recorder")
        self.rewards.publish(event)
        return event.header.stamp.sec * NANOSECONDS + event.header.stamp.nanosec

    def end(self, process: subprocess.Popen[str], number: int) -> tuple[int, str]:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors


@pytest.fixture(scope="module")
def domain() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def graph(domain: None, tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path / "data")
    yield made
    end_processes(made.processes)
    made.node.destroy_node()


def test_a_publisher_is_a_stranger_until_it_answers_or_is_heard(domain: None) -> None:
    talker, listener = rclpy.create_node("talker"), rclpy.create_node("listener")
    talker.create_publisher(RewardEvent, "/said", command_qos())
    listener.create_subscription(RewardEvent, "/said", lambda _: None, command_qos())
    heard: list[str] = []
    publishers = Publishers(listener, ["/said"], heard.__contains__)
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(listener)

    def until(name: str) -> None:
        end = time.monotonic() + 30.0
        while publishers.stranger() != name:
            assert time.monotonic() < end, publishers.stranger()
            executor.spin_once(0.05)

    until("/talker")  # that nobody spins: it can't answer
    for _ in range(20):
        executor.spin_once(0.05)
    assert publishers.stranger() == "/talker"
    heard.append("/said")
    assert publishers.stranger() == ""
    heard.clear()
    executor.add_node(talker)
    until("")
    executor.shutdown()
    for node in (talker, listener):
        node.destroy_node()


def test_records_labels_and_stays_ready(graph: Graph) -> None:
    graph.robot()
    recorder = graph.recorder()
    first = graph.start(note="by hand", seed=-1)
    graph.until(lambda: any(e.event == e.STARTED for e in graph.events), "the start")
    graph.wait(1.0)
    stamp_ns = graph.label(RewardEvent.SUCCESS)
    event = graph.ended(first)
    assert (event.saved, event.outcome, event.labeller) == (True, event.OUTCOME_SUCCESS, "test")
    assert (event.message, event.task, event.task_hash) == ("", "push", TASK.hash)
    assert Path(event.path) == graph.data / first
    info = load_episode_info(graph.data / first)
    assert info.complete and info.outcome is Outcome.SUCCESS and info.label_ns == stamp_ns
    assert (info.note, info.seed, info.source, info.policy_version) == (
        "by hand", None, "policy", "v7",
    )  # fmt: skip
    with EpisodeReader(graph.data / first, TASK) as reader:
        counted = {name: 0 for name in RATED}
        for name, message in reader.messages():
            if name == "reward":
                assert (message.kind, message.labeller) == (RewardEvent.SUCCESS, "test")
            else:
                counted[name] += 1
    assert info.steps == counted["executed_action"]
    # Streams start and end within one tick of each other.
    assert max(counted.values()) - min(counted.values()) <= 2

    second = graph.start(episode_id="second")
    refused = graph.call(graph.start_client, StartEpisode.Request())
    assert not refused.started and "episode second is running" in refused.message
    graph.wait(0.5)
    stopped = graph.call(graph.stop_client, StopEpisode.Request(outcome=2, labeller="session"))
    assert stopped.stopped and stopped.path == str(graph.data / second)
    assert load_episode_info(graph.data / second).outcome is Outcome.FAILURE
    idle = graph.call(graph.stop_client, StopEpisode.Request(outcome=1))
    assert not idle.stopped and idle.message == "no episode is running"

    graph.start(episode_id="third")
    graph.wait(0.2)
    stopped = graph.call(graph.stop_client, StopEpisode.Request(outcome=3))
    assert stopped.stopped and stopped.path == ""
    assert [path.name for path in list_episodes(graph.data)] == [first, "second"]

    late: list[EpisodeEvent] = []
    graph.node.create_subscription(EpisodeEvent, "/rl100/episode", late.append, episode_qos())
    graph.until(lambda: bool(late), "the newest event for a late subscriber")
    assert (late[0].episode_id, late[0].event) == ("third", EpisodeEvent.ENDED)
    code, errors = graph.end(recorder, signal.SIGTERM)
    assert code == 0 and "Traceback" not in errors


def test_nothing_is_lost_at_a_high_rate(graph: Graph) -> None:
    graph.recorder(lockstep=True)
    robot = graph.robot("--rate", "250", "--count", "750", "--bytes", "20000")
    name = graph.start()
    # The robot waits for its subscribers, which are there once the start is granted or earlier:
    # what it sent before the start is known from the first message in the bag.
    assert robot.stdout is not None
    graph.until(lambda: "sent" in (robot.stdout.readline() if robot.stdout else ""), "the robot")
    graph.call(graph.stop_client, StopEpisode.Request(outcome=1))
    info = load_episode_info(graph.data / name)
    received = {topic: audit.received for topic, audit in info.audit.items()}
    counts = {received[TASK.streams[stream].topic] for stream in RATED}
    assert len(counts) == 1 or max(counts) - min(counts) <= 1  # started in the midst of a tick
    assert max(counts) > 0
    assert all(audit.longest_gap_s < 1.0 for audit in info.audit.values())


def _refused_with(graph: Graph, sentence: str) -> None:
    """Once the recorder has found the robot, each start is refused with this sentence."""
    answers: list[str] = []

    def refused() -> bool:
        response = graph.call(graph.start_client, StartEpisode.Request())
        assert not response.started
        answers.append(response.message)
        return response.message == sentence

    graph.until(refused, f"'{sentence}', got {answers}")


def test_missing_topic_is_named(graph: Graph) -> None:
    graph.robot("--skip", "points")
    graph.recorder(gate_timeout_s=1.0)
    _refused_with(graph, "nothing publishes /rl100/points: start the node that makes it")
    assert list_episodes(graph.data) == unfinished_episodes(graph.data) == []


def test_stuck_topic_is_named(graph: Graph) -> None:
    graph.robot("--freeze", "tool_pose")
    graph.recorder(gate_timeout_s=1.0)
    _refused_with(graph, "no message on /tool_pose yet: is its node stuck?")


def test_two_systems_at_once_are_told(graph: Graph) -> None:
    graph.robot()
    graph.robot()
    graph.recorder()
    answers: list[str] = []

    def try_once() -> bool:
        response = graph.call(graph.start_client, StartEpisode.Request())
        answers.append(response.message)
        graph.call(graph.stop_client, StopEpisode.Request(outcome=3))
        return "does another system run in the same ROS_DOMAIN_ID?" in response.message

    graph.until(try_once, f"a warning, got {answers}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_keeps_the_running_episode(graph: Graph, number: int) -> None:
    graph.robot()
    recorder = graph.recorder()
    name = graph.start()
    graph.wait(0.5)
    code, errors = graph.end(recorder, number)
    assert code == 0
    assert "Traceback" not in errors
    assert errors.count(f"interrupted: what was recorded of {name} is kept") == 1
    event = graph.ended(name)
    assert (event.saved, event.outcome, event.labeller) == (True, 0, "interrupted")
    info = load_episode_info(graph.data / name)
    assert (info.outcome, info.labeller) == (Outcome.UNKNOWN, "interrupted")
    with EpisodeReader(graph.data / name, TASK) as reader:
        assert len(list(reader.messages())) > 20


def _fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_kill_9_loses_only_the_running_episode(graph: Graph) -> None:
    graph.robot()
    recorder = graph.recorder()
    kept = graph.start()
    graph.wait(0.5)
    graph.label(RewardEvent.SUCCESS)
    graph.ended(kept)
    before = _fingerprint(graph.data / kept)
    lost = graph.start()
    graph.wait(0.5)
    code, _ = graph.end(recorder, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert [path.name for path in list_episodes(graph.data)] == [kept]
    assert [path.name for path in unfinished_episodes(graph.data)] == [lost]
    assert _fingerprint(graph.data / kept) == before

    again = graph.recorder()
    new = graph.start()
    graph.wait(0.5)
    graph.label(RewardEvent.FAILURE)
    assert graph.ended(new).saved
    code, errors = graph.end(again, signal.SIGINT)
    assert code == 0
    assert errors.count(f"episode {lost} was cut off by a crash") == 1
    assert new not in (kept, lost)
    assert [path.name for path in list_episodes(graph.data)] == sorted([kept, new])
    assert _fingerprint(graph.data / kept) == before


def test_mistakes_are_one_sentence(domain: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parameter, sentence in (
        (f"data:={tmp_path}/file/data", "the folder of the episodes cannot be made"),
        ("task:=nowhere", "task 'nowhere' is unknown"),
        ("grace_s:=long", "parameter grace_s of rl100_recorder must be a number"),
    ):
        folder = ("-p", f"data:={tmp_path}/data")
        command = [sys.executable, "-c", RECORDER, "--ros-args", *folder, "-p", parameter]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert sentence in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "data").exists()
