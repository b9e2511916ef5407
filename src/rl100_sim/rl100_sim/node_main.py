"""How every node of this package starts and stops: one place, so that all stop alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rl100_contracts.errors import run_main


def spin_node(factory: Callable[[], Node]) -> None:
    """Run one node until Ctrl-C or SIGTERM, then leave with exit status 0.

    A user's mistake (ContractError) while the node is made gives one sentence and status 2.
    """

    def main() -> int:
        rclpy.init(args=sys.argv)
        node: Any = None
        try:
            node = factory()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
        return 0

    run_main(main)


def describe(text: str, **limits: float) -> Any:
    """A parameter's description, read-only, with an optional range ``low``, ``high``."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(description=text, read_only=True)
    if limits:
        low, high = limits["low"], limits["high"]
        if isinstance(low, int):
            whole = IntegerRange(from_value=low, to_value=int(high), step=0)
            descriptor.integer_range = [whole]
        else:
            span = FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            descriptor.floating_point_range = [span]
    return descriptor
