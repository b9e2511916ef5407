"""Teleoperation by the keys of a terminal."""

from __future__ import annotations

import os
import signal
import threading
import time

from rl100_node.labelling import LabelKeys
from rl100_node.parameters import declare
from rl100_node.terminal import KeyReader, RawTerminal, StatusLine
from rl100_teleop.keys import KeyPilot, key_table
from rl100_teleop.operator_node import OperatorNode

HELP = (
    "arrows or i j k l move (page up/down or u o: z)   shift+arrow fast   [ ] slower, faster\n"
    "where the task turns the tool: Y H about x, U J about y, I K about z (capitals)\n"
    "r start   s success   f failure   d discard   space or Esc STOP the robot   h help   q quit"
)


class TeleopKeyboardNode(OperatorNode):
    """Moves the robot while a key is held; starts and labels episodes."""

    def __init__(self) -> None:
        self._terminal = RawTerminal("teleop_keyboard")
        self._status = StatusLine()
        self._reader: KeyReader | None = None
        self._lock = threading.Lock()
        super().__init__("rl100_teleop", "keyboard")
        invert = declare(self, "invert", "", "actions with swapped keys, e.g. 'x,y'")
        speed = declare(self, "speed", 0.4, "part of the largest speed", low=0.05, high=1.0)
        names = [name.strip() for name in invert.split(",") if name.strip()]
        self._pilot = KeyPilot(key_table(self.task, names), self.task.action.dim, speed)
        self._labels = LabelKeys()

    def bring_up(self) -> None:
        """Take the terminal; run_node calls it before spinning."""
        self._terminal.__enter__()
        self._status.say(HELP)
        self._reader = KeyReader(self._terminal, self._on_key, self._quit)

    def shut_down(self) -> None:
        """Give the terminal back."""
        if self._reader is not None:
            self._reader.close()
        self._terminal.restore()
        self._status.end()

    def say(self, text: str) -> None:
        """Print a sentence above the status line."""
        self._status.say(text)

    @staticmethod
    def _quit() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # as from outside: run_node ends the node in order

    def _on_key(self, key: str) -> None:
        """In the reader's thread."""
        now = time.monotonic()
        with self._lock:
            if self._pilot.press(key, now):
                return
            label = self._labels.press(key, now)
            if label is not None:
                self._pilot.stop()
        if label is not None:
            self.publish_label(label)
        elif key in ("q", "ctrl+d"):
            self._quit()
        elif key in ("h", "?"):
            self.say(HELP)
        elif key == "r":
            self.start_episode()

    def on_tick(self) -> None:
        """Publish the action of the held keys."""
        with self._lock:
            direction, speed = self._pilot.steer(time.monotonic())
        steers = self.drive(direction, speed)
        parts = [
            f"{'+' if value > 0 else '-'}{name}"
            for name, value in zip(self.task.action.names, direction, strict=True)
            if value
        ]
        motion = " ".join(parts) or ("still" if steers else "idle")
        if self.stopped:
            motion = "STOPPED until: rl100 mode NAME --clear-stop"
        now_ns = self.get_clock().now().nanoseconds
        self._status.show(f"speed {speed:.0%} {motion} | {self.view.line(now_ns)}")
