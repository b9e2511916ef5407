"""Publishes the required streams of the built-in task as a small robot would; run as a process.

    python fake_robot.py [--rate HZ] [--skip STREAM] [--freeze STREAM] [--count N] [--bytes N]

With ``--count`` it waits for a subscriber of every stream, sends N ticks as fast as ``--rate``
says, and prints ``sent N``.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import time
from importlib import import_module

import rclpy
from rclpy.node import Node
from rclpy.time import Time

from rl100_contracts.streams import Role
from rl100_contracts.task import NANOSECONDS, load_task
from rl100_node.qos import qos_for


def main() -> None:
    """Publish until killed, or ``--count`` ticks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--skip", default="")
    parser.add_argument("--freeze", default="")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=0, help="size of a depth image")
    options = parser.parse_args()
    rclpy.init()
    node = Node("fake_robot")
    publishers = []
    for name, stream in load_task("push").streams.items():
        if stream.role is Role.EVENT or name == options.skip:
            continue
        package, _, kind = stream.type.split("/")
        message = getattr(import_module(f"{package}.msg"), kind)()
        if name == "executed_action":
            message.mode, message.source, message.policy_version = 2, "policy", "v7"
            message.action = [0.01, -0.02]
        if name == "depth":
            message.data = array.array("B", bytes(options.bytes))
        publisher = node.create_publisher(type(message), stream.topic, qos_for(stream, True))
        publishers.append((name, publisher, message))
    while options.count and any(p.get_subscription_count() == 0 for _, p, _ in publishers):
        time.sleep(0.05)
    print("ready", flush=True)
    # Stamped by the schedule, as a camera that exposes on time: a busy machine delays messages, it
    # makes no gaps between them.
    tick, due, first_ns = 0, time.monotonic(), node.get_clock().now().nanoseconds
    while rclpy.ok() and (not options.count or tick < options.count):
        stamp = Time(nanoseconds=first_ns + round(tick * NANOSECONDS / options.rate)).to_msg()
        for name, publisher, message in publishers:
            if name == options.freeze:
                continue
            message.header.stamp = stamp
            publisher.publish(message)
        tick += 1
        due += 1.0 / options.rate
        time.sleep(max(0.0, due - time.monotonic()))
    print(f"sent {tick}", flush=True)
    time.sleep(1.0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
