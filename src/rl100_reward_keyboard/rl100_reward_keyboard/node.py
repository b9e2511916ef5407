"""Keys that label the running episode: a RewardEvent, stamped at the moment of the key press."""

from __future__ import annotations

import os
import signal
import time

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from rl100_contracts.decode import message_stamp_ns
from rl100_msgs.msg import EpisodeEvent, RewardEvent
from rl100_node.labelling import EpisodeView, LabelKeys
from rl100_node.parameters import declare
from rl100_node.qos import command_qos, episode_qos
from rl100_node.terminal import KeyReader, RawTerminal, StatusLine

HELP = (
    "s success   f failure   d discard   space or Esc STOP the robot   1-9 reward   h help   q quit"
)


class RewardKeyboardNode(Node):
    """Publishes ``/rl100/reward``; shows the running episode and the result of the last one."""

    def __init__(self) -> None:
        super().__init__("rl100_reward_keyboard")
        self._terminal = RawTerminal("reward_keyboard")
        self._labeller = declare(self, "labeller", "keyboard", "name stored with each verdict")
        unit = declare(self, "digit_reward", 0.1, "reward of the key 1 (n: n times it)")
        self._keys, self._view, self._status = LabelKeys(unit), EpisodeView(), StatusLine()
        self._reader: KeyReader | None = None
        self._publisher = self.create_publisher(RewardEvent, "/rl100/reward", command_qos())
        self.create_subscription(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self.create_timer(0.2, self._refresh, clock=Clock(clock_type=ClockType.STEADY_TIME))

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

    @staticmethod
    def _quit() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # as from outside: run_node ends the node in order

    def _on_key(self, key: str) -> None:
        """In the reader's thread, so that the stamp doesn't wait for the node's other work."""
        stamp = self.get_clock().now().to_msg()
        if key in ("q", "ctrl+d"):
            return self._quit()
        if key in ("h", "?"):
            return self._status.say(HELP)
        label = self._keys.press(key, time.monotonic())
        if label is None:
            return None
        event = RewardEvent(kind=label.kind, value=label.value, labeller=self._labeller)
        event.header.stamp = stamp
        self._publisher.publish(event)
        to = f" for {self._view.running}" if self._view.running else ""
        heard = self._publisher.get_subscription_count() > 0
        warning = "" if heard else " - but nobody listens: is the recorder running?"
        return self._status.say(f"{label.word}{to}{warning}")

    def _on_episode(self, event: EpisodeEvent) -> None:
        if event.event == EpisodeEvent.STARTED:
            self._view.started(event.episode_id, message_stamp_ns(event))
        else:
            self._view.ended(event.episode_id, event.outcome, event.saved, event.message)
        self._refresh()

    def _refresh(self) -> None:
        self._status.show(self._view.line(self.get_clock().now().nanoseconds))
