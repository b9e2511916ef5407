"""What keyboard and joystick share as nodes: action chunks, verdicts, starting an episode."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState

from rl100_contracts.chunks import fill_message
from rl100_contracts.decode import decode_feedback, message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_msgs.msg import ActionChunk, EpisodeEvent, ExecutedAction, GatewayStatus, RewardEvent
from rl100_msgs.srv import StartEpisode
from rl100_node.labelling import EpisodeView, Label
from rl100_node.parameters import declare, declare_task
from rl100_node.qos import command_qos, episode_qos, latched_qos, qos_for
from rl100_teleop.steering import Engagement, Steering

_FEEDBACK = {"sensor_msgs/msg/JointState": JointState, "geometry_msgs/msg/PoseStamped": PoseStamped}


class OperatorNode(Node):
    """Publishes ``/rl100/teleop_chunk`` at the control rate while somebody steers.

    Subclasses call ``drive`` from ``on_tick`` and may overwrite ``say``.

    Attributes:
        stopped: the gateway says that the robot is stopped until an operator clears it.
    """

    def __init__(self, name: str, source: str) -> None:
        super().__init__(name)
        self.task = declare_task(self)
        self.source = declare(self, "source", source, "name stored with each action and verdict")
        release_s = declare(
            self, "release_s", 1.0, "pause after which the controls are left, s", low=0, high=60
        )
        self.view = EpisodeView()
        self._steering = Steering(self.task, self.source, time.time_ns())
        self._engagement = Engagement(release_s)
        self._position: NDArray[np.float64] | None = None
        self._chunks = self.create_publisher(ActionChunk, "/rl100/teleop_chunk", command_qos())
        self._rewards = self.create_publisher(RewardEvent, "/rl100/reward", command_qos())
        self._start = self.create_client(StartEpisode, "/rl100/episode/start")
        self.create_subscription(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self.stopped = False
        status = "/rl100/gateway_status"
        self.create_subscription(GatewayStatus, status, self._on_status, latched_qos())
        if self._steering.needs_feedback:
            stream = self.task.streams[self.task.action.feedback]
            qos = qos_for(stream, lockstep=False, latest_only=True)
            self.create_subscription(_FEEDBACK[stream.type], stream.topic, self._on_feedback, qos)
        # In simulation time the ticks follow the simulated clock; else no jump of the wall clock
        # may stop them.
        simulated = bool(self.get_parameter("use_sim_time").value)
        clock = self.get_clock() if simulated else Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self.task.control.rate_hz, self.on_tick, clock=clock)

    def on_tick(self) -> None:
        """Called at the control rate."""

    def say(self, text: str) -> None:
        """Tell the person one sentence."""
        self.get_logger().info(text)

    def drive(self, direction: NDArray[np.float64] | None, speed: float) -> bool:
        """Publish the action for this tick; False when nobody steers.

        Args:
            direction: (d,), each from -1 to 1; None: the controls are left at once.
            speed: part of the largest speed, 0 to 1.
        """
        if direction is None:
            if not self._engagement.end():
                return False
            direction = np.zeros(self.task.action.dim)  # the last word: stand still
        elif not self._engagement.update(bool(np.any(direction)), time.monotonic()):
            self._steering.release()
            return False
        if self._steering.needs_feedback and self._position is None:
            return False
        action = self._steering.action(direction, speed, self._position)
        chunk = self._steering.chunk(action, self.get_clock().now().nanoseconds)
        frame = self.task.base_frame if self.task.action.is_cartesian else ""
        self._chunks.publish(fill_message(ActionChunk(), chunk, frame, Time))
        return True

    def publish_label(self, label: Label) -> None:
        """Publish a verdict, stamped now; may be called from another thread."""
        event = RewardEvent(kind=label.kind, value=label.value, labeller=self.source)
        event.header.stamp = self.get_clock().now().to_msg()
        self._rewards.publish(event)
        heard = self._rewards.get_subscription_count() > 0
        self.say(label.word if heard else f"{label.word} - but no recorder listens")

    def start_episode(self) -> None:
        """Ask the recorder to start; the answer is told when it comes."""
        if not self._start.service_is_ready():
            self.say("no recorder is running: nothing was started")
            return
        future = self._start.call_async(StartEpisode.Request(note=self.source, seed=-1))
        future.add_done_callback(self._on_started)

    def _on_started(self, future: Future) -> None:
        response = future.result()
        if response is not None:
            self.say(f"recording {response.episode_id}" if response.started else response.message)

    def _on_episode(self, event: EpisodeEvent) -> None:
        if event.event == EpisodeEvent.STARTED:
            self.view.started(event.episode_id, message_stamp_ns(event))
        else:
            self.view.ended(event.episode_id, event.outcome, event.saved, event.message)

    def _on_status(self, status: GatewayStatus) -> None:
        self.stopped = status.mode == ExecutedAction.MODE_STOPPED

    def _on_feedback(self, message: Any) -> None:
        try:
            self._position = decode_feedback(self.task, message)
        except ContractError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
