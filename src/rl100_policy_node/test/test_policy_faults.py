"""The policy node in real time, as a process, when things go wrong.

Pins: no bad bundle and no flipped byte of one changes what runs, and a large one is checked in
another process; a refusal is on /diagnostics for a while; a swap loses no decision; a killed node
starts again; a stopped camera or joint feedback and wrong clocks are named, and it recovers by
itself; an inference that is too slow is said; nothing is planned across the start of an episode;
what the system refuses is reported; and each run ends with a report.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from rl100_contracts.bundle import MANIFEST, WEIGHTS, load_manifest
from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.task import Task
from rl100_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, PolicyStep
from rl100_msgs.srv import LoadBundle
from rl100_node.qos import episode_qos, latched_qos
from rl100_node.testing import Graph
from rl100_policy_node.bad_bundles import MakeBundle, bad_bundles, flipped_bytes, rehash
from rl100_policy_node.bundle_service import LastRefusal
from rl100_policy_node.gaps import Gaps
from rl100_policy_node.live_robot import LiveRobot
from rl100_policy_node.testing import heavy_graph, policy_graph, self_test

pytestmark = pytest.mark.integration

NODE = "rl100_policy_node.main"


class Policy:
    """The node as a process, and what it says."""

    def __init__(self, graph: Graph, task: Task, **parameters: object) -> None:
        self.graph = graph
        self.process = graph.start(NODE, **parameters)
        self.chunks = graph.record(ActionChunk, "/rl100/action_chunk")
        self.status = graph.record(PolicyStatus, "/rl100/policy_status", latched_qos())
        self.robot = LiveRobot(graph, task)

    def wait_for_chunks(self, count: int = 2) -> None:
        wanted = len(self.chunks) + count
        self.graph.wait(lambda: len(self.chunks) >= wanted, "chunks")

    def wait_for_message(self, text: str) -> None:
        """Wait until the status says ``text``, or nothing when that is empty."""

        def said() -> bool:
            message = self.status[-1].message if self.status else "no status"
            return text in message if text else message == ""

        self.graph.wait(said, f"the status '{text}'")

    def load(self, **request: object) -> LoadBundle.Response:
        return self.graph.call(LoadBundle, "/rl100_policy/load_bundle", **request)


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def test_no_bad_bundle_changes_what_runs(
    graph: Graph, make_bundle: MakeBundle, task: Task, tmp_path: Path
) -> None:
    good = make_bundle("good", selftest=self_test(task, 0.01))
    policy = Policy(graph, task, bundle=good)
    policy.wait_for_chunks()
    for sentence, folder in bad_bundles(make_bundle, task, tmp_path / "nowhere"):
        answer = policy.load(path=str(folder))
        assert not answer.accepted and answer.policy_version == "good"
        assert sentence in answer.message, answer.message
        assert "\n" not in answer.message
    policy.wait_for_chunks()
    assert {chunk.policy_version for chunk in policy.chunks} == {"good"}
    refused = policy.load(previous=True)
    assert not refused.accepted and "no bundle ran before" in refused.message
    sequences = [chunk.sequence for chunk in policy.chunks]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    output = graph.stop(policy.process)
    assert "run report" in output and "missed deadlines" in output


def test_no_flipped_byte_changes_what_runs(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    pushed = make_bundle("pushed", selftest=self_test(task, 0.01))
    (pushed / WEIGHTS).write_bytes(bytes(range(256)))
    rehash(pushed)
    policy = Policy(graph, task, bundle=make_bundle("good"))
    policy.wait_for_chunks()
    files, before = set(), len(policy.chunks)
    for name in flipped_bytes(pushed, 42):
        answer = policy.load(path=str(pushed))
        assert not answer.accepted and answer.policy_version == "good", name
        assert str(pushed / name) in answer.message and "\n" not in answer.message
        files.add(name)
    assert files == {*load_manifest(pushed).files, MANIFEST}
    assert len(policy.chunks) > before, "it decided meanwhile"
    policy.wait_for_chunks()
    assert {chunk.policy_version for chunk in policy.chunks} == {"good"}
    sequences = [chunk.sequence for chunk in policy.chunks]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert policy.load(path=str(pushed)).accepted, "it was sound but for the flipped bytes"
    graph.stop(policy.process)


def test_a_refusal_is_a_warning_until_a_bundle_is_accepted(
    graph: Graph, make_bundle: MakeBundle, task: Task, tmp_path: Path
) -> None:
    policy = Policy(graph, task, bundle=make_bundle("first"))
    diagnostics = graph.record(DiagnosticArray, "/diagnostics", 10)

    def wait_for(level: bytes, sentence: str) -> None:
        graph.wait(
            lambda: any(
                found.level == level and found.message == sentence
                for array in diagnostics[-1:]
                for found in array.status
            ),
            f"the diagnostic '{sentence}'",
        )

    wait_for(DiagnosticStatus.OK, "running")
    refused = policy.load(path=str(tmp_path / "nowhere"))
    assert "no such bundle" in refused.message
    wait_for(DiagnosticStatus.WARN, f"bundle refused: {refused.message}")
    assert policy.load(path=str(make_bundle("second"))).accepted
    wait_for(DiagnosticStatus.OK, "running")
    graph.stop(policy.process)


def test_a_refusal_is_shown_for_ten_seconds() -> None:
    now = [100.0]
    refusal = LastRefusal(lambda: now[0])
    assert str(refusal) == ""
    refusal.note("first")
    now[0] += 5
    refusal.note("second")
    now[0] += 9.9
    assert str(refusal) == "second"
    now[0] += 0.2
    assert str(refusal) == ""
    refusal.note("third")
    refusal.note("")  # accepted
    assert str(refusal) == ""


def test_a_gap_is_said_when_it_lasts() -> None:
    now = [0.0]
    gaps = Gaps(lambda: now[0])
    assert str(gaps) == ""
    for tenths in range(13):  # as at a start: some frames, then no more
        now[0] = tenths / 10
        gaps.note(f"{tenths} tenths")
        assert str(gaps) == ("0 tenths" if tenths >= 10 else "")
    now[0] += 1.1
    assert str(gaps) == ""
    gaps.note("again")
    assert str(gaps) == ""


def test_swaps_lose_no_decision_and_go_back_at_once(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    small = make_bundle("small")
    large = make_bundle("large", policy=heavy_graph(task, products=0, size=3000))
    policy = Policy(graph, task, bundle=small)
    policy.wait_for_chunks()
    assert policy.load(path=str(large)).accepted
    policy.wait_for_chunks()
    assert policy.chunks[-1].policy_version == "large"
    policy.graph.wait(lambda: policy.status[-1].previous_version == "small", "the status")
    assert policy.load(previous=True).policy_version == "small"
    policy.wait_for_chunks()
    versions = [chunk.policy_version for chunk in policy.chunks]
    changes = sum(a != b for a, b in itertools.pairwise(versions))
    assert changes == 2 and versions[0] == versions[-1] == "small"
    sequences = [chunk.sequence for chunk in policy.chunks]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    decided = [message_stamp_ns(chunk) for chunk in policy.chunks]
    assert all(a < b for a, b in itertools.pairwise(decided)), "no frame is decided twice"
    assert set(decided) <= set(policy.robot.stamps)
    graph.stop(policy.process)


def test_the_chain_is_loaded_when_the_sampler_asks_for_it(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    policy = Policy(graph, task, bundle=make_bundle("first"))
    steps = graph.record(PolicyStep, "/rl100/policy_step")
    policy.wait_for_chunks()
    wanted = [
        Parameter("sampler", value="k_step").to_parameter_msg(),
        Parameter("stochastic", value=True).to_parameter_msg(),
    ]
    answer = graph.call(SetParameters, "/rl100_policy/set_parameters", parameters=wanted)
    assert all(result.successful for result in answer.results), answer.results
    graph.wait(lambda: policy.status[-1].sampler == "k_step", "the sampler")
    graph.wait(lambda: len(steps) > 1, "chains")
    assert policy.load(path=str(make_bundle("second"))).accepted
    count = len(steps)
    graph.wait(lambda: len(steps) > count + 1, "chains of the second bundle")
    assert steps[-1].policy_version == "second"
    graph.stop(policy.process)


def test_a_killed_node_starts_again(graph: Graph, make_bundle: MakeBundle, task: Task) -> None:
    bundle = make_bundle("first")
    policy = Policy(graph, task, bundle=bundle)
    policy.wait_for_chunks()
    policy.process.send_signal(signal.SIGKILL)
    policy.process.wait(20)
    graph.spin(1.0)
    count = len(policy.chunks)
    again = graph.start(NODE, bundle=bundle)
    graph.wait(lambda: len(policy.chunks) > count + 1, "chunks of the new process")
    fresh = policy.chunks[count:]
    assert fresh[0].sequence == 1 and fresh[0].policy_version == "first"
    assert message_stamp_ns(fresh[0]) > message_stamp_ns(policy.chunks[count - 1])
    graph.stop(again)


def test_what_stops_is_named_and_comes_back(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    policy = Policy(graph, task, bundle=make_bundle("first"))
    diagnostics = graph.record(DiagnosticArray, "/diagnostics", 10)
    policy.wait_for_message("")
    for stream in ("points", "joint_states"):
        policy.robot.stopped = {stream}
        policy.wait_for_message(f"no message on {task.streams[stream].topic} for more than")
        graph.wait(
            lambda: any(
                s.level == DiagnosticStatus.ERROR and "no message on" in s.message
                for s in diagnostics[-1].status
            ),
            "the diagnostic",
        )
        count = len(policy.chunks)
        graph.spin(3 * task.control.period_ns * 1e-9)
        assert len(policy.chunks) == count, "it does not decide on what it does not see"
        policy.robot.stopped = set()
        policy.wait_for_message("")
        policy.wait_for_chunks()
    graph.stop(policy.process)


@pytest.mark.parametrize(("shift_s", "side"), [(30, "after"), (-30, "before")])
def test_clocks_that_differ_are_said_and_mending_them_helps(
    graph: Graph, make_bundle: MakeBundle, task: Task, shift_s: int, side: str
) -> None:
    policy = Policy(graph, task, bundle=make_bundle("first"))
    policy.wait_for_chunks()
    policy.robot.shift_ns = shift_s * 10**9
    policy.wait_for_message(f"{side} their arrival: set the clocks")
    policy.robot.shift_ns = 0
    policy.wait_for_message("")
    policy.wait_for_chunks()
    assert abs(message_stamp_ns(policy.chunks[-1]) - time.time_ns()) < 20 * 10**9
    graph.stop(policy.process)


def test_an_inference_that_is_too_slow_is_said(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    slow = make_bundle("slow", policy=heavy_graph(task, products=9, size=1500))
    fast = make_bundle("fast")
    policy = Policy(graph, task, bundle=slow)
    policy.wait_for_message("longer than its chunk lasts")
    policy.wait_for_chunks(1)
    assert policy.load(path=str(fast)).accepted
    policy.wait_for_message("")
    policy.wait_for_chunks()
    assert policy.chunks[-1].policy_version == "fast"
    graph.stop(policy.process)


def test_nothing_is_planned_across_the_start_of_an_episode(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    policy = Policy(graph, task, bundle=make_bundle("first"))
    events = graph.node.create_publisher(EpisodeEvent, "/rl100/episode", episode_qos())
    graph.wait(lambda: events.get_subscription_count() > 0, "the reader of the events")
    graph.introduce("/rl100/episode")
    policy.wait_for_chunks()
    for _ in range(5):
        policy.wait_for_chunks(1)
        count = len(policy.chunks)
        graph.spin(1.4 * task.control.period_ns * 1e-9)  # in the middle of the plan
        assert len(policy.chunks) == count
        start_ns = time.time_ns()
        event = EpisodeEvent(event=EpisodeEvent.STARTED)
        event.header.stamp.sec, event.header.stamp.nanosec = split_ns(start_ns)
        events.publish(event)
        policy.wait_for_chunks(1)
        decided_ns = message_stamp_ns(policy.chunks[count])
        plan = task.control.n_action_steps * task.control.period_ns
        assert start_ns <= decided_ns < message_stamp_ns(policy.chunks[count - 1]) + plan
    graph.stop(policy.process)


def test_what_the_system_refuses_is_reported_and_it_goes_on(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    policy = Policy(
        graph,
        task,
        bundle=make_bundle("first", policy=policy_graph(task)),
        provider="tensorrt",
        cpu_affinity=999,
        freeze_gc=True,
    )
    policy.wait_for_chunks()
    status = policy.status[-1]
    assert any("cpu_affinity [999] is refused" in text for text in status.refused)
    if status.provider == "CPUExecutionProvider":
        assert status.provider_asked == "tensorrt" and status.provider_reason
    output = graph.stop(policy.process)
    assert "cpu_affinity [999] is refused" in output
    assert "provider tensorrt cannot be used, CPUExecutionProvider runs" in output
