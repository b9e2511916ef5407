"""Entry point of the executable ``perception``."""

from __future__ import annotations

from rl100_node import run_node


def main() -> None:
    """Run the perception node until SIGINT or SIGTERM."""
    run_node("rl100_perception.node:PerceptionNode")
