"""Pins the reward keyboard as a process on a real (pseudo) terminal: keys become stamped events,
arrows don't stop the robot, the terminal comes back whole, and no terminal is one sentence.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs.msg")

from rl100_msgs.msg import EpisodeEvent, RewardEvent  # noqa: E402
from rl100_node.qos import command_qos, episode_qos  # noqa: E402
from rl100_node.testing import end_processes  # noqa: E402

pytestmark = pytest.mark.integration

PROGRAM = "from rl100_reward_keyboard.main import main; main()"


class Person:
    """Somebody at a terminal in which the reward keyboard runs."""

    def __init__(self, node: Any, *arguments: str) -> None:
        self.node = node
        self.events: list[RewardEvent] = []
        self.screen = ""
        self._lock = threading.Lock()
        self.subscription = node.create_subscription(
            RewardEvent, "/rl100/reward", self.events.append, command_qos()
        )
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--ros-args", *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            text=True,
        )

    def look(self) -> str:
        """All that the terminal has shown so far."""
        while select.select([self.master], [], [], 0.0)[0]:
            self.screen += os.read(self.master, 4096).decode(errors="replace")
        return self.screen

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, f"in vain; the terminal shows: {self.screen}"
            rclpy.spin_once(self.node, timeout_sec=0.05)
            self.look()

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ready(self) -> None:
        self.until(lambda: "q quit" in self.look())
        self.until(lambda: self.node.count_publishers("/rl100/reward") > 0)
        # A key that labels nothing tells that both sides have found each other.
        while not self.events:
            self.press(b"1")
            self.until_or_timeout(1.0)
        self.events.clear()

    def until_or_timeout(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.events:
            rclpy.spin_once(self.node, timeout_sec=0.05)
            self.look()  # a terminal that nobody reads from blocks the program

    def leave(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def close(self) -> None:
        end_processes([self.process])
        self.node.destroy_subscription(self.subscription)
        for descriptor in (self.master, self.slave):
            os.close(descriptor)


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    rclpy.init()
    yield rclpy.create_node("test_listener")
    rclpy.try_shutdown()


@pytest.fixture
def person(node: Any) -> Iterator[Person]:
    made = Person(node, "-p", "labeller:=ann")
    yield made
    made.close()


def test_keys_become_stamped_events(person: Person) -> None:
    person.ready()
    person.press(b"s")
    person.until(lambda: len(person.events) == 1)
    person.press(b"f")
    person.press(b"\x1b[A\x1b[1;2D\x1bOC")  # arrows: nothing, and above all no stop
    person.press(b"xS\xff5d ")
    person.until(lambda: len(person.events) == 5)
    person.press(b"\x1b")
    person.until(lambda: len(person.events) == 6)
    kinds = [event.kind for event in person.events]
    assert kinds == [
        RewardEvent.SUCCESS, RewardEvent.FAILURE, RewardEvent.REWARD, RewardEvent.DISCARD,
        RewardEvent.STOP, RewardEvent.STOP,
    ]  # fmt: skip
    assert [round(event.value, 6) for event in person.events] == [1.0, 0.0, 0.5, 0.0, 0.0, 0.0]
    assert {event.labeller for event in person.events} == {"ann"}
    stamps = [event.header.stamp.sec for event in person.events]
    assert all(abs(stamp - time.time()) < 60 for stamp in stamps)


def test_shows_the_episode_and_gives_the_terminal_back(person: Person, node: Any) -> None:
    person.ready()
    events = node.create_publisher(EpisodeEvent, "/rl100/episode", episode_qos())
    event = EpisodeEvent(event=EpisodeEvent.STARTED, episode_id="push_7")
    event.header.stamp = node.get_clock().now().to_msg()
    events.publish(event)
    person.until(lambda: "recording push_7" in person.look())
    person.press(b"s")
    person.until(lambda: "success for push_7" in person.look())
    events.publish(
        EpisodeEvent(
            event=EpisodeEvent.ENDED, episode_id="push_7", outcome=1, saved=True, message="fine"
        )
    )
    person.until(lambda: "last: push_7 success, saved (fine)" in person.look())
    assert termios.tcgetattr(person.slave) != person.before
    person.press(b"q")
    code, errors = person.leave()
    assert (code, errors) == (0, "")
    assert termios.tcgetattr(person.slave) == person.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_give_the_terminal_back(person: Person, number: int) -> None:
    person.ready()
    person.process.send_signal(number)
    code, errors = person.leave()
    assert code == 0 and "Traceback" not in errors
    assert termios.tcgetattr(person.slave) == person.before


def test_without_terminal_it_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: reward_keyboard reads keys, but its standard input")
    assert done.stderr.count("\n") == 1


def test_simulation_time_stamps_events(node: Any) -> None:
    """With use_sim_time the verdict carries the simulator's clock, which the sensors carry too."""
    from rosgraph_msgs.msg import Clock

    person = Person(node, "-p", "use_sim_time:=true")
    clock = node.create_publisher(Clock, "/clock", 10)
    try:
        message = Clock()
        message.clock.sec = 1234
        # Until the keyboard has heard the clock, its time is 0.
        person.until(lambda: "q quit" in person.look())
        stamps: list[int] = []
        deadline = time.monotonic() + 30.0
        while 1234 not in stamps and time.monotonic() < deadline:
            clock.publish(message)
            person.events.clear()
            person.press(b"\x1b")
            person.until_or_timeout(0.5)
            stamps += [event.header.stamp.sec for event in person.events]
        assert 1234 in stamps and set(stamps) <= {0, 1234}
    finally:
        person.close()
        node.destroy_publisher(clock)
