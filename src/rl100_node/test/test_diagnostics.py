"""The log is thinned, ``/diagnostics`` is not.

Pins: of a state that comes and goes each change is published; it is logged once, by its severity.
"""

from __future__ import annotations

from unittest.mock import MagicMock

from builtin_interfaces.msg import Time

from rl100_node.diagnostics import OK, WARN, Diagnostics


def test_each_change_is_published_and_not_each_is_logged() -> None:
    node = MagicMock()
    node.get_name.return_value = "rl100_perception"
    sent: list[tuple[bytes, str]] = []
    publish = node.create_publisher.return_value.publish
    publish.side_effect = lambda array: sent.append(
        (array.status[0].level, array.status[0].message)
    )
    node.get_clock.return_value.now.return_value.to_msg.side_effect = Time
    diagnostics = Diagnostics(node)
    for _ in range(20):
        diagnostics.report(WARN, "few points")
        diagnostics.report(OK, "running")
    assert sent == [(WARN, "few points"), (OK, "running")] * 20
    assert diagnostics.message == "running"
    logger = node.get_logger.return_value
    logger.warning.assert_called_once_with("few points")
    logger.info.assert_not_called()
