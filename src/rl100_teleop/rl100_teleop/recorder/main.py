"""The executable ``recorder``: light, so that Ctrl-C ends cleanly even during the slow imports."""

from rl100_node import run_node


def main() -> None:
    """Run the recorder."""
    run_node("rl100_teleop.recorder.node:RecorderNode")
