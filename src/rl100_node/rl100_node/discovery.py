"""Makes sure that other nodes have found this one, before something is sent to them once only.

In DDS each side finds the other by itself. That this node sees a service or a subscriber does not
say that it is seen: until it is, a message to it, or the answer of a service, is lost without
repair. ROS does not tell when the other side is ready. But a process announces its endpoints in
the order in which they were made, and others take them in that order. So when the other node
answers a client that was made last, it knows every endpoint that this node had before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from rclpy.topic_endpoint_info import TopicEndpointInfo

#: Handles messages for at most so many seconds.
Spin = Callable[[float], object]

# An answer that the other node could not send is lost, so the question is asked again.
ASK_AGAIN_S = 0.25


def nodes_on_topic(node: Node, topic: str) -> set[str]:
    """Full names of the other nodes that publish or read a topic.

    Empty while there are none, or one whose name is still to come (soon after it was found).
    """
    ends = node.get_publishers_info_by_topic(topic) + node.get_subscriptions_info_by_topic(topic)
    return (node_names(ends) or set()) - {node.get_fully_qualified_name()}


def node_names(ends: Iterable[TopicEndpointInfo]) -> set[str] | None:
    """Full names of the nodes that endpoints belong to; None while one is still to come."""
    names = {f"{end.node_namespace.rstrip('/')}/{end.node_name}" for end in ends}
    return None if any("UNKNOWN" in name for name in names) else names


def nodes_that_serve(node: Node, service: str) -> set[str]:
    """Full names of the nodes that offer a service, as far as they are known."""
    found = set()
    for name, namespace in node.get_node_names_and_namespaces():
        try:
            services = node.get_service_names_and_types_by_node(name, namespace)
        except RuntimeError:  # the node has just left
            continue
        if any(offered == service for offered, _ in services):
            found.add(f"{namespace.rstrip('/')}/{name}")
    return found


def wait_until_known(node: Node, others: Iterable[str], spin: Spin, timeout_s: float) -> set[str]:
    """Handle messages until other nodes know every endpoint that this node has now.

    Args:
        node: this node; ``spin`` handles its messages.
        others: full names of rclpy or rclcpp nodes with parameter services (the default).
        spin: handles messages for at most the given time, s.
        timeout_s: how long to wait.

    Returns:
        The names of those that have not answered in time; empty: all of them know this node.
    """
    questions = {name: Question(node, name) for name in others}
    end = time.monotonic() + timeout_s
    try:
        while open_names := {name for name, asked in questions.items() if not asked.answered()}:
            if time.monotonic() > end:
                return open_names
            spin(0.02)
    finally:
        for question in questions.values():
            question.close()
    return set()


def introduce(node: Node, topics: Iterable[str], spin: Spin, timeout_s: float) -> str:
    """Handle messages until there are others on each of some topics and all of them know this node.

    Returns:
        What was still missing when the time was over; empty: nothing.
    """
    end, names = time.monotonic() + timeout_s, set()
    for topic in topics:
        while not (found := nodes_on_topic(node, topic)):
            if time.monotonic() > end:
                return f"no node is on topic {topic}"
            spin(0.05)
        names |= found
    silent = wait_until_known(node, names, spin, max(0.0, end - time.monotonic()))
    return f"node {min(silent)} does not answer" if silent else ""


def wait_for_service(node: Node, client: Client, spin: Spin, timeout_s: float) -> bool:
    """Handle messages until a service is there and its node can answer ``client``.

    Returns:
        Whether that was so in time.
    """
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0.0:
        servers = nodes_that_serve(node, client.service_name) if client.service_is_ready() else None
        if not servers:
            spin(0.05)
        # One that has died stays listed for a while: it is enough that one of them answers.
        elif wait_until_known(node, servers, spin, min(left, 2.0)) < servers:
            return True
    return False


class Question:
    """Asks a node for no parameters at all, until it answers.

    Args:
        node: that asks; the answer says that the other knows every endpoint it had before.
        other: full name of the node that is asked.
    """

    def __init__(self, node: Node, other: str) -> None:
        self._node = node
        self._client = node.create_client(GetParameters, f"{other}/get_parameters")
        self._asked: list[Future] = []
        self._asked_at = 0.0

    def answered(self) -> bool:
        """Whether an answer has come; asks (again) where it is time to."""
        if any(future.done() for future in self._asked):
            return True
        if time.monotonic() - self._asked_at > ASK_AGAIN_S and self._client.service_is_ready():
            self._asked.append(self._client.call_async(GetParameters.Request()))
            self._asked_at = time.monotonic()
        return False

    def close(self) -> None:
        """Ask no more."""
        self._node.destroy_client(self._client)
