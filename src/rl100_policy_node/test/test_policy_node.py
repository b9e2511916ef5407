"""The policy node as a process: observations in, chunks out; load_bundle swaps, goes back and
refuses without a change, and each due frame gets its chunk meanwhile; a wrong bundle at the start
ends it with one sentence; a clean end.
"""

from __future__ import annotations

import array
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState, PointCloud2, PointField

from rl100_contracts.chunks import chunk_from_message
from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.task import Task
from rl100_msgs.msg import ActionChunk, PolicyStatus, PolicyStep
from rl100_msgs.srv import LoadBundle
from rl100_node.qos import latched_qos
from rl100_node.testing import Graph
from rl100_policy_node.testing import heavy_graph

pytestmark = pytest.mark.integration

MakeBundle = Callable[..., Path]
START = 3 * 10**9


class Robot:
    """Publishes the observations of a tick."""

    def __init__(self, graph: Graph, task: Task) -> None:
        streams = task.streams
        self._task = task
        self._joints = graph.publisher(JointState, streams["joint_states"].topic)
        self._pose = graph.publisher(PoseStamped, streams["tool_pose"].topic)
        self._points = graph.publisher(PointCloud2, streams["points"].topic)

    def tick(self, stamp_ns: int) -> None:
        """All streams with one stamp; the values depend on it."""
        rng = np.random.default_rng(stamp_ns)
        joints = JointState(name=self._task.joint_names, position=rng.normal(size=2).tolist())
        pose, count = PoseStamped(), self._task.observation.cloud.num_points
        cloud = PointCloud2(height=1, width=count, point_step=12, row_step=12 * count)
        cloud.fields = [
            PointField(name=axis, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, axis in enumerate("xyz")
        ]
        points = rng.uniform(-0.3, 0.3, (count, 3)).astype("<f4")
        cloud.data = array.array("B", points.tobytes())
        for message, publisher in (
            (joints, self._joints),
            (pose, self._pose),
            (cloud, self._points),
        ):
            message.header.stamp.sec, message.header.stamp.nanosec = split_ns(stamp_ns)
            publisher.publish(message)


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def ticks(graph: Graph, task: Task, robot: Robot, chunks: list[ActionChunk], start: int) -> None:
    """Eight lockstep ticks, which are two decisions."""
    dt, before = task.control.period_ns, len(chunks)
    for i in range(2 * task.control.n_action_steps):
        robot.tick(start + i * dt)
        wanted = before + 1 + i // task.control.n_action_steps
        graph.wait(lambda count=wanted: len(chunks) >= count, "a chunk")


def test_decisions_by_stamp_and_swapping_bundles(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    first, second = make_bundle("first"), make_bundle("second", gain=0.0)
    broken = make_bundle("broken")
    (broken / "policy.onnx").write_bytes(b"changed")
    process = graph.start("rl100_policy_node.main", lockstep=True, bundle=first, seed=4)
    robot = Robot(graph, task)
    chunks = graph.record(ActionChunk, "/rl100/action_chunk")
    status = graph.record(PolicyStatus, "/rl100/policy_status", latched_qos())
    ticks(graph, task, robot, chunks, START)
    dt, count = task.control.period_ns, task.control.n_action_steps
    for i, message in enumerate(chunks):
        chunk = chunk_from_message(message, task)
        assert message_stamp_ns(message) == START + i * count * dt
        assert chunk.stamps_ns.tolist() == [START + (i * count + k) * dt for k in range(count)]
        assert chunk.sequence == i + 1 and chunk.policy_version == "first"
        assert np.abs(chunk.actions).max() > 0
    assert len(chunks) == 2

    def load(**request: object) -> LoadBundle.Response:
        return graph.call(LoadBundle, "/rl100_policy/load_bundle", **request)

    refused = load(previous=True)
    assert not refused.accepted and refused.policy_version == "first"
    refused = load(path=str(broken))
    assert not refused.accepted and "policy.onnx: damaged or changed" in refused.message
    ticks(graph, task, robot, chunks, START + 10**10)
    assert chunks[-1].policy_version == "first"
    assert load(path=str(second)).accepted
    ticks(graph, task, robot, chunks, START + 2 * 10**10)
    assert chunks[-1].policy_version == "second"
    assert not any(chunks[-1].actions)
    back = load(previous=True)
    assert back.accepted and back.policy_version == "first"
    graph.wait(lambda: bool(status) and status[-1].policy_version == "first", "the status")
    assert status[-1].sampler == "one_step" and status[-1].task_hash == task.hash
    graph.stop(process)


def test_each_due_frame_gets_its_chunk_across_swaps(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    """The world goes on while a bundle loads, one decision after the other."""
    first = make_bundle("first")
    second = make_bundle("second", policy=heavy_graph(task, products=0, size=3000))
    process = graph.start("rl100_policy_node.main", lockstep=True, bundle=first)
    robot, sent = Robot(graph, task), 0
    chunks = graph.record(ActionChunk, "/rl100/action_chunk")
    dt, count = task.control.period_ns, task.control.n_action_steps

    def step() -> None:
        nonlocal sent
        if len(chunks) >= -(-sent // count):  # each due frame so far has its chunk
            robot.tick(START + sent * dt)
            sent += 1

    step()
    graph.wait(lambda: len(chunks) == 1, "the first chunk")
    graph.node.create_timer(0.002, step)
    for request, version in (({"path": str(second)}, "second"), ({"previous": True}, "first")):
        assert graph.call(LoadBundle, "/rl100_policy/load_bundle", **request).accepted
        wanted = len(chunks) + 3
        graph.wait(lambda wanted=wanted: len(chunks) >= wanted, "chunks after the swap")
        assert chunks[-1].policy_version == version
    stamps = [message_stamp_ns(chunk) for chunk in chunks]
    assert stamps == [START + i * count * dt for i in range(len(chunks))]
    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))
    versions = [chunk.policy_version for chunk in chunks]
    assert sum(a != b for a, b in itertools.pairwise(versions)) == 2
    graph.stop(process)


def test_the_same_seed_gives_the_same_chunks_and_chains(
    make_bundle: MakeBundle, task: Task
) -> None:
    bundle, runs = make_bundle("chain"), []
    for seed in (4, 4, 5):
        with Graph() as graph:
            process = graph.start(
                "rl100_policy_node.main",
                lockstep=True,
                bundle=bundle,
                sampler="k_step",
                stochastic=True,
                seed=seed,
            )
            robot = Robot(graph, task)
            chunks = graph.record(ActionChunk, "/rl100/action_chunk")
            steps = graph.record(PolicyStep, "/rl100/policy_step")
            ticks(graph, task, robot, chunks, START)
            graph.wait(lambda found=steps: len(found) == 2, "the chains")
            assert [step.sequence for step in steps] == [chunk.sequence for chunk in chunks]
            assert len(steps[0].chain) == (steps[0].denoising_steps + 1) * 4 * task.action.dim
            assert len(steps[0].log_probs) == len(steps[0].timesteps) == steps[0].denoising_steps
            runs.append([list(m.actions) for m in chunks] + [list(s.chain) for s in steps])
            graph.stop(process)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_wrong_bundle_at_the_start_is_one_sentence(
    graph: Graph, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = make_bundle("wrong")
    with (bundle / "denoiser.onnx").open("r+b") as file:
        file.seek(40)
        file.write(b"\xff")
    for path, sentence in (
        (bundle, "denoiser.onnx: damaged or changed"),
        (tmp_path / "nowhere", "nowhere: no such bundle"),
    ):
        process = graph.start("rl100_policy_node.main", bundle=path)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 2
        assert sentence in output and "Traceback" not in output


def test_without_a_bundle_it_waits_and_says_so(graph: Graph) -> None:
    process = graph.start("rl100_policy_node.main")
    status = graph.record(PolicyStatus, "/rl100/policy_status", latched_qos())
    graph.wait(lambda: bool(status), "the status")
    assert "no bundle is loaded" in status[-1].message
    graph.stop(process)
