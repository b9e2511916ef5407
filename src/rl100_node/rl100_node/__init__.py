"""What every rl100 node shares: clean start and end, parameters, QoS, lifecycle, diagnostics.

``from rl100_node import run_node`` is light (no rclpy): an executable's ``main`` uses it so that
Ctrl-C during the slow imports already ends cleanly. The rest is in the modules ``parameters``,
``qos``, ``lifecycle`` and ``diagnostics``.
"""

from rl100_node.running import run_node

__all__ = ["run_node"]
