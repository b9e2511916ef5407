"""Discovery: a node waits until others know it, so that nothing that is sent once is lost.

Pins: after ``wait_for_service`` the first call of a client is answered, also where the server's
process was stopped while the client appeared; after ``wait_until_known`` one message published
once arrives; nodes that do not answer are named after the time-out.
"""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from rl100_node.discovery import nodes_on_topic, nodes_that_serve, wait_until_known
from rl100_node.testing import Graph

pytestmark = pytest.mark.integration

NODE = textwrap.dedent(
    """
    import rclpy
    from std_msgs.msg import String
    from std_srvs.srv import Trigger

    def main():
        rclpy.init()
        node = rclpy.create_node("echo", namespace="cell")
        out = node.create_publisher(String, "/answer", 10)
        node.create_subscription(String, "/question", out.publish, 10)
        def serve(request, response):
            response.success = True
            return response
        node.create_service(Trigger, "/serve", serve)
        try:
            rclpy.spin(node)
        except KeyboardInterrupt:
            pass
    """
)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    (tmp_path / "echo_node.py").write_text(NODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with Graph() as made:
        yield made


def _spin(graph: Graph):
    return lambda seconds: graph.executor.spin_once(timeout_sec=seconds)


def test_the_first_call_is_answered_although_the_server_slept(graph: Graph) -> None:
    process = graph.start("echo_node")
    graph.wait(lambda: nodes_that_serve(graph.node, "/serve") == {"/cell/echo"}, "the service")
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        client = graph.node.create_client(Trigger, "/serve")
        graph.node.create_timer(0.3, lambda: process.send_signal(signal.SIGCONT))
        assert graph.call(Trigger, "/serve").success
        graph.node.destroy_client(client)


def test_a_message_that_is_sent_once_arrives_and_so_does_the_answer(graph: Graph) -> None:
    graph.start("echo_node")
    for number in range(5):
        heard: list[String] = []
        subscription = graph.node.create_subscription(String, "/answer", heard.append, 10)
        publisher = graph.node.create_publisher(String, "/question", 10)
        graph.wait(lambda p=publisher: p.get_subscription_count() == 1, "the other's reader")
        for topic in ("/answer", "/question"):
            graph.wait(
                lambda t=topic: nodes_on_topic(graph.node, t) == {"/cell/echo"}, "the other's name"
            )
        assert wait_until_known(graph.node, ["/cell/echo"], _spin(graph), 30.0) == set()
        publisher.publish(String(data=str(number)))
        graph.wait(lambda got=heard: bool(got), "the answer")
        assert heard == [String(data=str(number))]
        graph.node.destroy_subscription(subscription)
        graph.node.destroy_publisher(publisher)


def test_a_node_that_does_not_answer_is_named(graph: Graph) -> None:
    process = graph.start("echo_node")
    graph.wait(lambda: nodes_on_topic(graph.node, "/answer") == {"/cell/echo"}, "the node")
    process.send_signal(signal.SIGSTOP)
    others = ["/cell/echo", "/nobody"]
    assert wait_until_known(graph.node, others, _spin(graph), 0.5) == {"/cell/echo", "/nobody"}
    process.send_signal(signal.SIGCONT)
    assert wait_until_known(graph.node, others, _spin(graph), 5.0) == {"/nobody"}
