"""A policy for tests, as a process of its own: ten chunks a second, one step of 2 mm each tick.

Arguments: the first sequence, the step in x (m), the version.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.task import load_task
from rl100_msgs.msg import ActionChunk
from rl100_node.qos import command_qos

TASK = load_task("push")
DT = TASK.control.period_ns


def main() -> None:
    """Publish until the process is told to end."""
    sequence, step, version = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    rclpy.init()
    node = rclpy.create_node("fake_policy")
    publisher = node.create_publisher(ActionChunk, "/rl100/action_chunk", command_qos())
    due = time.monotonic()
    while rclpy.ok():
        now = time.time_ns()
        stamps = now + DT * np.arange(1, 7, dtype=np.int64)
        actions = np.tile(np.float32([step, 0.0]), (6, 1))
        plan = Chunk(sequence, "policy", version, now, stamps, actions, int(stamps[-1]) + DT)
        publisher.publish(fill_message(ActionChunk(), plan, "base_link", Time))
        sequence += 1
        due += 0.1
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
