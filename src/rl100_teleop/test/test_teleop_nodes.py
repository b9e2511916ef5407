"""Pins the teleoperation processes: held keys and sticks become valid one-action chunks that end
with the key or the dead-man button, and keys start and label episodes.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs.msg")

from sensor_msgs.msg import Joy  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from rl100_contracts.chunks import chunk_from_message  # noqa: E402
from rl100_contracts.task import load_task  # noqa: E402
from rl100_msgs.msg import ActionChunk, ExecutedAction, GatewayStatus, RewardEvent  # noqa: E402
from rl100_msgs.srv import StartEpisode  # noqa: E402
from rl100_node.qos import command_qos, latched_qos  # noqa: E402
from rl100_node.testing import end_processes  # noqa: E402

pytestmark = pytest.mark.integration

TASK = load_task("push")


class Station:
    """The robot's side: hears chunks and verdicts, answers the start of an episode."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("test_station")
        self.chunks: list[ActionChunk] = []
        self.rewards: list[RewardEvent] = []
        self.starts: list[str] = []
        self.deadman: list[Bool] = []
        for kind, topic, kept in (
            (ActionChunk, "/rl100/teleop_chunk", self.chunks),
            (RewardEvent, "/rl100/reward", self.rewards),
            (Bool, "/rl100/deadman", self.deadman),
        ):
            self.node.create_subscription(kind, topic, kept.append, command_qos())
        self.node.create_service(StartEpisode, "/rl100/episode/start", self._start)
        self.process: subprocess.Popen[str] | None = None

    def _start(self, request: Any, response: Any) -> Any:
        self.starts.append(request.note)
        response.started, response.episode_id = True, "push_1"
        return response

    def run(self, function: str, stdin: int, *arguments: str) -> None:
        program = f"from rl100_teleop.main import {function}; {function}()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "--ros-args", *arguments],
            stdin=stdin,
            stdout=stdin if stdin > 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def until(self, condition: Callable[[], bool], poke: Callable[[], None] | None = None) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            if poke is not None:
                poke()
            rclpy.spin_once(self.node, timeout_sec=0.03)

    def until_silent(self, poke: Callable[[], None] | None = None) -> None:
        """Until no chunk has come for a second."""
        last, count = time.monotonic(), len(self.chunks)

        def silent() -> bool:
            nonlocal last, count
            if len(self.chunks) != count:
                last, count = time.monotonic(), len(self.chunks)
            return time.monotonic() - last > 1.0

        self.until(silent, poke)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.03)

    def actions(self) -> list[list[float]]:
        return [
            [round(float(v), 5) for v in chunk_from_message(c, TASK).actions[0]]
            for c in self.chunks
        ]


@pytest.fixture(scope="module")
def domain() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def station(domain: None) -> Iterator[Station]:
    made = Station()
    yield made
    if made.process is not None:
        end_processes([made.process])
    made.node.destroy_node()


def test_keyboard_steers_starts_and_labels(station: Station) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    station.run("keyboard", slave, "-p", "speed:=0.5", "-p", "release_s:=0.5")

    def hold(keys: bytes) -> Callable[[], None]:
        return lambda: os.write(master, keys) and None

    station.until(lambda: len(station.chunks) > 3, hold(b"\x1b[A"))
    assert {tuple(action) for action in station.actions()} <= {(0.015, 0.0), (0.0, 0.0)}
    assert [0.015, 0.0] in station.actions()
    # Released: it stands still, then leaves the controls.
    station.until(lambda: station.actions()[-1] == [0.0, 0.0])
    station.until_silent()
    sequences = [chunk.sequence for chunk in station.chunks]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    chunk = station.chunks[0]
    assert (chunk.source, chunk.policy_version, chunk.header.frame_id) == (
        "keyboard", "", "base_link",
    )  # fmt: skip
    assert abs(chunk.header.stamp.sec - time.time()) < 60

    os.write(master, b"r")
    station.until(lambda: station.starts == ["keyboard"])
    # The verdict is not also a motion, and ends the motion before it.
    os.write(master, b"l")
    os.write(master, b"s")
    station.until(lambda: len(station.rewards) == 1)
    assert station.rewards[0].kind == RewardEvent.SUCCESS
    os.write(master, b"\x1b")
    station.until(lambda: len(station.rewards) == 2)
    assert station.rewards[1].kind == RewardEvent.STOP
    os.write(master, b"q")
    assert station.process is not None
    assert station.process.wait(30) == 0
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_the_keyboards_line_says_that_the_robot_is_stopped_until_it_is_cleared(
    station: Station,
) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    status = station.node.create_publisher(GatewayStatus, "/rl100/gateway_status", latched_qos())
    station.run("keyboard", slave)
    shown = [""]

    def read() -> None:
        with suppress(BlockingIOError):
            shown[0] += os.read(master, 4096).decode()

    status.publish(GatewayStatus(mode=ExecutedAction.MODE_STOPPED))
    station.until(lambda: "STOPPED until: rl100 mode NAME --clear-stop" in shown[0], read)
    shown[0] = ""
    status.publish(GatewayStatus(mode=ExecutedAction.MODE_TELEOP))
    station.until(lambda: "idle |" in shown[0], read)
    assert station.end()[0] == 0
    os.close(master)
    os.close(slave)


def test_keyboard_without_terminal_is_one_sentence(station: Station) -> None:
    station.run("keyboard", subprocess.DEVNULL)
    assert station.process is not None
    assert station.process.wait(60) == 2
    _, errors = station.end()
    assert errors.startswith("error: teleop_keyboard reads keys, but its standard input is not")
    assert errors.count("\n") == 1


def test_joystick_steers_with_the_deadman_and_labels(station: Station) -> None:
    station.run("joy", subprocess.DEVNULL, "-p", "speed:=1.0")
    sticks = station.node.create_publisher(Joy, "/joy", 10)

    def joy(deadman: int, success: int = 0) -> None:
        buttons = [0] * 8
        buttons[4], buttons[0] = deadman, success
        sticks.publish(Joy(axes=[-1.0, 1.0, 0.0, 0.0, 0.0], buttons=buttons))

    station.until(lambda: sticks.get_subscription_count() > 0)
    for _ in range(20):
        joy(0)
        station.wait(0.03)
    assert station.chunks == []
    station.until(lambda: len(station.chunks) > 3, lambda: joy(1))
    assert [0.03, -0.03] in station.actions()
    assert station.chunks[0].source == "joy"
    station.until(lambda: station.deadman[-1:] == [Bool(data=True)], lambda: joy(1))
    # Letting go of the button: one last action, which stands still.
    station.until(lambda: station.actions()[-1] == [0.0, 0.0], lambda: joy(0))
    station.until(lambda: not station.deadman[-1].data)  # another topic: it may come later
    station.until_silent(lambda: joy(0))
    joy(0, success=1)
    station.until(lambda: len(station.rewards) == 1)
    assert station.rewards[0].labeller == "joy"
    assert station.end()[0] == 0


def test_bad_mapping_is_one_sentence(station: Station) -> None:
    station.run("joy", subprocess.DEVNULL, "-p", "axes:='1,2,3'")
    assert station.process is not None
    assert station.process.wait(60) == 2
    _, errors = station.end()
    assert errors == "error: parameter axes has 3 values, task 'push' has 2 actions\n"
