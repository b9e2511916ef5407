"""For tests: nodes as real processes on a ROS domain of their own, and a node to talk to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

from rl100_node.discovery import introduce, wait_for_service
from rl100_node.qos import command_qos

PATIENCE_S = 30.0
ENDING_S = 10.0


def end_processes(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End those that still run: in order, and only what does not end then by force.

    A node that is killed leaves its shared memory behind, 64 MiB each, and Fast DDS can crash when
    it opens what was left on the same ports: a later test with the same ROS domain then fails.
    """
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.communicate(timeout=ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class Talker:
    """A publisher whose messages wait until both sides have found each other."""

    def __init__(self, graph: Graph, publisher: Publisher) -> None:
        self._graph, self._publisher = graph, publisher

    def publish(self, message: Any) -> None:
        """Publish, after the graph has settled."""
        self._graph.settle()
        self._publisher.publish(message)


class Graph:
    """A node of the test, and the processes that it talks to. Use as a context manager."""

    def __init__(self) -> None:
        self.domain = int(os.environ["ROS_DOMAIN_ID"])  # see conftest.py
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes: list[subprocess.Popen[str]] = []
        self._new: set[str] = set()  # topics on which others may not know this node yet

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        end_processes(self.processes)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def start(self, module: str, code: str = "", **parameters: object) -> subprocess.Popen[str]:
        """Start the ``main`` of a module, or ``code`` in its place, with ROS parameters."""
        code = code or f"from {module} import main; main()"
        command = [sys.executable, "-c", code, "--ros-args"]
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

    def settle(self) -> None:
        """Handle messages until the others on this node's new topics know it."""
        self.introduce(*self._new)
        self._new.clear()

    def introduce(self, *topics: str) -> None:
        """Handle messages until the others that are on some topics now know this node."""
        missing = introduce(self.node, topics, self._spin_once, PATIENCE_S)
        assert not missing, missing

    def _spin_once(self, seconds: float) -> None:
        self.executor.spin_once(timeout_sec=seconds)

    def publisher(self, kind: Any, topic: str, qos: QoSProfile | None = None) -> Talker:
        """A publisher that has found its first subscriber."""
        publisher = self.node.create_publisher(kind, topic, qos or command_qos())
        self.wait(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        self._new.add(topic)
        return Talker(self, publisher)

    def record(self, kind: Any, topic: str, qos: QoSProfile | None = None) -> list[Any]:
        """A list that grows with each message on a topic that has a publisher."""
        messages: list[Any] = []
        self.node.create_subscription(kind, topic, messages.append, qos or command_qos())
        self.wait(lambda: self.node.count_publishers(topic) > 0, f"a publisher of {topic}")
        self._new.add(topic)
        return messages

    def spin(self, seconds: float) -> None:
        """Handle messages for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Handle messages until a condition holds; AssertionError after half a minute."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, kind: Any, name: str, **request: object) -> Any:
        """Call a service and give its response."""
        client = self.node.create_client(kind, name)
        found = wait_for_service(self.node, client, self._spin_once, PATIENCE_S)
        assert found, f"waited in vain for the service {name}"
        future = client.call_async(kind.Request(**request))
        self.wait(future.done, f"the answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    @staticmethod
    def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
        """End a process by a signal; it must leave cleanly. Returns what it printed."""
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0, output
        assert "Traceback" not in output, output
        return output
