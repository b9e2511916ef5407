"""A ROS node inside a command: with a context of its own, and without rclpy's signal handlers."""

from __future__ import annotations

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions


class OwnNode:
    """A node and the executor that handles its messages.

    The command that makes it handles Ctrl-C; rclpy's handler would only stop the waiting.

    Args:
        name: of the node.
        domain: ROS domain; None: that of the environment.
    """

    def __init__(self, name: str, domain: int | None = None) -> None:
        self._context = Context()
        rclpy.init(
            context=self._context,
            domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = rclpy.create_node(name, context=self._context)
        # Not the nodes' executor: that one has no callbacks with the times of their message.
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin_once(self, timeout_s: float) -> None:
        """Handle one message, or wait for one so long."""
        self._executor.spin_once(timeout_sec=timeout_s)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
