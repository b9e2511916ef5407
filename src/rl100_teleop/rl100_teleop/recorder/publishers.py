"""Whether the publishers of the recorded topics have found the recorder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rclpy.node import Node

from rl100_node.discovery import Question, node_names


class Publishers:
    """Asks the nodes behind some topics until each has shown that it knows the recorder.

    That the recorder sees a publisher does not say that the publisher sees the recorder; until it
    does, what it sends is lost without a trace. Make it after the subscriptions.

    Args:
        node: the recorder; its executor takes the answers.
        topics: full names.
        heard: whether a message of a topic has come, so that there is nothing to ask.
    """

    def __init__(self, node: Node, topics: Sequence[str], heard: Callable[[str], bool]) -> None:
        self._node, self._topics, self._heard = node, topics, heard
        self._asked: dict[str, Question] = {}

    def stranger(self) -> str:
        """A node that publishes one of the topics and has not answered, or the topic where its
        name is still to come; empty: none."""
        for topic in self._topics:
            if self._heard(topic):
                continue
            names = node_names(self._node.get_publishers_info_by_topic(topic))
            if names is None:
                return topic
            for name in sorted(names):
                if name not in self._asked:
                    self._asked[name] = Question(self._node, name)
                if not self._asked[name].answered():
                    return name
        return ""
