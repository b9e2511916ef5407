"""Entry point of the executable ``gateway``."""

from __future__ import annotations

from rl100_node import run_node


def main() -> None:
    """Run the gateway node until SIGINT or SIGTERM."""
    run_node("rl100_control.node:GatewayNode")
