"""A node's health on ``/diagnostics``: at once when it changes, and once a second."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from rl100_node.thinning import Thinned

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Diagnostics:
    """Publishes one status; a change of level or sentence also goes to the log, thinned.

    Args:
        node: the owner.
        period_s: repetition, s (wall time).
    """

    def __init__(self, node: Node, period_s: float = 1.0) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = DiagnosticStatus(name=node.get_name(), level=OK, message="starting")
        self._thinned = Thinned()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period_s, self._on_timer, clock=clock)

    @property
    def message(self) -> str:
        """The present sentence."""
        return str(self._status.message)

    def report(
        self, level: bytes, message: str, values: Mapping[str, object] | None = None
    ) -> None:
        """Set the state. Cheap when nothing changed.

        Args:
            level: OK, WARN or ERROR of this module.
            message: one sentence; changing numbers belong into ``values``.
            values: figures, published with the next repetition.
        """
        changed = level != self._status.level or message != self._status.message
        if values is not None:
            self.update(values)
        if changed:
            self._status.level, self._status.message = level, message
            self._log(self._thinned.changed(message, fine=level == OK))
            self.publish()

    def _on_timer(self) -> None:
        self._log(self._thinned.due())
        self.publish()

    def _log(self, message: str) -> None:
        if not message:
            return
        # One call for each severity: rclpy refuses another severity from the same line.
        level, logger = self._status.level, self._node.get_logger()
        if level == OK:
            logger.info(message)
        elif level == WARN:
            logger.warning(message)
        else:
            logger.error(message)

    def update(self, values: Mapping[str, object]) -> None:
        """Replace the figures; they go out with the next repetition."""
        self._status.values = [KeyValue(key=k, value=str(v)) for k, v in values.items()]

    def publish(self) -> None:
        """Publish the present state."""
        array = DiagnosticArray(status=[self._status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def destroy(self) -> None:
        """Remove the publisher and the timer from the node."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)
