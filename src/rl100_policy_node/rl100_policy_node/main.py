"""Entry point of the executable ``policy``."""

from __future__ import annotations

from rl100_node import run_node


def main() -> None:
    """Run the policy node until SIGINT or SIGTERM."""
    run_node("rl100_policy_node.node:PolicyNode")
