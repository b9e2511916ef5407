"""The trainer node on the ROS graph: a goal gives feedback, a bundle and a push; a second goal is
refused; a cancelled goal ends within seconds; a mistake is told in the result; no child is left.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.loading import write_text_atomic
from rl100_contracts.task import Task

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from rl100_msgs.action import Train  # noqa: E402
from rl100_msgs.srv import LoadBundle  # noqa: E402
from rl100_node.discovery import wait_until_known  # noqa: E402

pytestmark = pytest.mark.integration

_spec = importlib.util.spec_from_file_location("trainer_bags", Path(__file__).parent / "bags.py")
assert _spec is not None and _spec.loader is not None
bags = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bags)

SMALL = (
    "model.widths=[32]",
    "model.features=8",
    "model.point_widths=[8,16]",
    "diffusion.steps=5",
    "imitation.batch_size=16",
    "distill.steps=20",
    "device=cpu",
)


class Graph:
    """A trainer node in a process of its own, a client of it, and a stand-in policy node."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        self.task_file = folder / "small.yaml"
        write_text_atomic(self.task_file, task.to_yaml())
        domain = int(os.environ["ROS_DOMAIN_ID"])
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("trainer_tester", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.pushed: list[str] = []
        self.accept = True
        self.node.create_service(LoadBundle, "/rl100_policy/load_bundle", self._load)
        self.client = ActionClient(self.node, Train, "/rl100_trainer/train")
        arguments = [
            "--ros-args",
            "-p",
            f"task:={self.task_file}",
            "-p",
            f"runs:={folder / 'runs'}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rl100_trainer.node", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "XDG_CACHE_HOME": str(folder)},
            stderr=subprocess.DEVNULL,
        )
        self.until(self.client.server_is_ready)
        assert not wait_until_known(self.node, ["/rl100_trainer"], self._spin_once, 30.0)

    def _spin_once(self, seconds: float) -> None:
        self.executor.spin_once(timeout_sec=seconds)

    def _load(self, request: LoadBundle.Request, response: LoadBundle.Response) -> Any:
        self.pushed.append(request.path)
        response.accepted, response.policy_version = self.accept, "tested"
        response.message = "running" if self.accept else "refused by the test"
        return response

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened"
            assert self.process.poll() is None, "the trainer node died"
            self.executor.spin_once(timeout_sec=0.05)

    def send(self, feedback: list[Any] | None = None, **values: Any) -> Any:
        goal = Train.Goal(**{"stage": "il", "overrides": list(SMALL), **values})
        seen = feedback if feedback is not None else []
        sending = self.client.send_goal_async(
            goal, feedback_callback=lambda m: seen.append(m.feedback.progress)
        )
        self.until(sending.done)
        return sending.result()

    def result(self, handle: Any) -> Train.Result:
        waiting = handle.get_result_async()
        self.until(waiting.done)
        return waiting.result().result

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 0
        self.client.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def graph(tmp_path: Path, task: Task) -> Iterator[Graph]:
    for name in ("a", "b"):
        bags.write_bag(tmp_path / "data", name, task)
    graph = Graph(tmp_path, task)
    yield graph
    graph.close()


def test_goal_gives_feedback_bundle_and_push(graph: Graph, task: Task) -> None:
    data, feedback = str(graph.folder / "data"), []
    overrides = [*SMALL, "imitation.steps=100"]
    handle = graph.send(feedback, data=[data], overrides=overrides, push=True)
    assert handle.accepted
    result = graph.result(handle)
    assert result.success and result.pushed, result.message
    assert graph.pushed == [result.bundle]
    assert verify_bundle(Path(result.bundle), task).policy_version == result.policy_version
    assert Path(result.bundle).is_relative_to(graph.folder / "runs")
    assert {p.phase for p in feedback} & {"denoiser", "student"}
    assert all(p.stage == "il" for p in feedback)
    # A policy node that refuses does not make the training a failure.
    graph.accept = False
    output = str(graph.folder / "second")
    result = graph.result(graph.send(data=[data], output=output, overrides=overrides, push=True))
    assert result.success and not result.pushed and "refused by the test" in result.message


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for entry in tasks for child in entry.read_text().split()]


def test_second_goal_is_refused_and_cancel_ends_the_child(graph: Graph) -> None:
    data, feedback = [str(graph.folder / "data")], []
    forever = [*SMALL, "imitation.steps=1000000"]
    handle = graph.send(feedback, data=data, overrides=forever)
    graph.until(lambda: any(p.phase == "denoiser" for p in feedback))
    assert len(_children(graph.process.pid)) == 1
    assert not graph.send(data=data).accepted
    graph.until(handle.cancel_goal_async().done)
    result = graph.result(handle)
    assert not result.success and "cancelled" in result.message
    assert _children(graph.process.pid) == []
    # The node is free again, and its own end takes a running child along.
    handle = graph.send(feedback, data=data, overrides=forever)
    assert handle.accepted
    graph.until(lambda: _children(graph.process.pid))


def test_mistakes_are_told_in_the_result(graph: Graph) -> None:
    assert not graph.send(stage="nonsense").accepted
    assert "names no folder" in graph.result(graph.send()).message
    result = graph.result(graph.send(data=["/nowhere"], overrides=["imitation.step=1"]))
    assert "did you mean 'steps'" in result.message
    result = graph.result(graph.send(data=["/nowhere"]))
    assert not result.success and result.message.startswith("/nowhere: no such folder")
