"""The command gateway as a ROS node: a lifecycle shell around Gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Float64MultiArray

from rl100_contracts.chunks import chunk_from_message
from rl100_contracts.decode import decode_feedback, message_stamp_ns, peek_stamp_ns, split_ns
from rl100_contracts.errors import ContractError
from rl100_control.gateway import Gateway, Mode, Tick
from rl100_msgs.msg import ActionChunk, EpisodeEvent, ExecutedAction, GatewayStatus, RewardEvent
from rl100_msgs.srv import SetMode
from rl100_node.diagnostics import OK, WARN, Diagnostics
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.messages import message_class
from rl100_node.parameters import declare, declare_lockstep, declare_task
from rl100_node.qos import command_qos, episode_qos, latched_qos, qos_for

MODES = {mode.name.lower(): mode for mode in Mode}
STATUS_PERIOD_S = 0.5
PROBLEM_SHOWN_S = 2.0


class GatewayNode(AutostartLifecycleNode):
    """The only publisher of robot commands."""

    def __init__(self) -> None:
        super().__init__("rl100_gateway")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        mode = declare(
            self, "mode", "idle", "who may move the robot at the start", choices=tuple(MODES)
        )
        self._patience_s = declare(
            self, "lockstep_timeout_s", 5.0, "lockstep: hold after so long, s", low=0.1, high=600.0
        )
        self._gateway = Gateway(self._task, MODES[mode], lockstep=self._lockstep)
        self._feedback_ns = 0
        self._cloud_ns = 0
        self._pending: tuple[int, float] | None = None  # tick that waits for a chunk, and since
        self._holding, self._reason = True, "no feedback yet"
        self._refusal, self._refused_until = "", 0.0
        self._rate_from, self._rate_hz = (time.monotonic(), 0), 0.0

    def setup(self) -> None:
        """Make publishers, subscriptions, the service and the timers."""
        task = self._task
        self._diagnostics = Diagnostics(self)
        self.on_cleanup_do(self._diagnostics.destroy)
        kind = message_class(task.action.command_type)
        self._commands = self.advertise(kind, task.action.command, command_qos())
        self._pose = self._pose_template()
        executed = task.streams[task.action_stream]
        self._executed = self.advertise(ExecutedAction, executed.topic, command_qos())
        self._status = self.advertise(GatewayStatus, "/rl100/gateway_status", latched_qos())
        feedback = task.streams[task.action.feedback]
        qos = qos_for(feedback, self._lockstep)
        self.subscribe(message_class(feedback.type), feedback.topic, self._on_feedback, qos)
        for topic, teleop in (("/rl100/action_chunk", False), ("/rl100/teleop_chunk", True)):
            self.subscribe(ActionChunk, topic, self._chunk_taker(teleop), command_qos())
        self.subscribe(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self.subscribe(RewardEvent, "/rl100/reward", self._on_reward, command_qos())
        self.serve(SetMode, "/rl100_gateway/set_mode", self._on_set_mode)
        self.every(STATUS_PERIOD_S, self._on_status_timer)
        if self._lockstep:
            self._follow_clouds()
            self.every(min(self._patience_s / 4, 0.5), self._on_patience)
        else:
            self.every(task.control.period_ns * 1e-9, self._on_timer)

    def start(self) -> None:
        """Begin to tick."""
        self._publish_status()

    def halt(self) -> None:
        """Send nothing more; the robot's own command time-out holds it."""
        self._pending = None

    def _pose_template(self) -> PoseStamped:
        pose = PoseStamped()
        pose.header.frame_id = self._task.base_frame
        pose.pose.orientation.w = 1.0
        for axis, value in self._task.action.fixed_position.items():
            setattr(pose.pose.position, axis, value)
        return pose

    def _follow_clouds(self) -> None:
        """Lockstep: no tick ends before its cloud is there, or perception would fall behind."""
        stream = self._task.streams[self._task.observation.cloud.stream]
        qos, kind = qos_for(stream, True), message_class(stream.type)
        # Raw: only the stamp matters, and unpacking each cloud would cost more than the tick.
        subscription = self.create_subscription(kind, stream.topic, self._on_cloud, qos, raw=True)
        self.on_cleanup_do(lambda: self.destroy_subscription(subscription))

    # --- inputs

    def _now_ns(self) -> int:
        return self._feedback_ns if self._lockstep else self.get_clock().now().nanoseconds

    def _on_feedback(self, msg: Any) -> None:
        stamp_ns = message_stamp_ns(msg)
        try:
            problem = self._gateway.on_feedback(stamp_ns, decode_feedback(self._task, msg))
        except ContractError as error:
            problem = str(error)
        if problem:
            self._note(problem)
            return
        self._feedback_ns = stamp_ns
        if self._lockstep and self.active:
            self._pending = (stamp_ns, time.monotonic())
            self._try_pending()

    def _on_cloud(self, data: bytes) -> None:
        self._cloud_ns = max(self._cloud_ns, peek_stamp_ns(data))
        self._try_pending()

    def _chunk_taker(self, teleop: bool) -> Callable[[ActionChunk], None]:
        def take(msg: ActionChunk) -> None:
            try:
                chunk = chunk_from_message(msg, self._task)
                refusal = self._gateway.on_chunk(chunk, self._now_ns(), teleop=teleop)
            except ContractError as error:
                refusal = str(error)
            if refusal:
                self._note(refusal)
            self._try_pending()

        return take

    def _note(self, problem: str) -> None:
        """Keep a refusal for the diagnostics; the timer reports it, so that a flood is thinned."""
        self._refusal, self._refused_until = problem, time.monotonic() + PROBLEM_SHOWN_S

    def _on_episode(self, msg: EpisodeEvent) -> None:
        # In lockstep the stamps alone separate the episodes: an event that is late must not
        # forget the first chunk of the episode that has begun.
        if msg.event == EpisodeEvent.STARTED and not self._lockstep:
            self._gateway.new_episode()

    def _on_reward(self, msg: RewardEvent) -> None:
        if msg.kind == RewardEvent.STOP:
            self._gateway.stop(f"'{msg.labeller or 'an operator'}' pressed stop")
            self._diagnostics.report(WARN, "stopped: an operator has to clear it")
            self._publish_status()
            self._try_pending()

    def _on_set_mode(
        self, request: SetMode.Request, response: SetMode.Response
    ) -> SetMode.Response:
        if request.mode not in list(Mode):
            response.message = f"mode {request.mode} is unknown: use ExecutedAction.MODE_*"
        else:
            response.message = self._gateway.set_mode(
                Mode(request.mode), clear_stop=request.clear_stop
            )
        response.accepted = not response.message
        response.mode = int(self._gateway.mode)
        self._publish_status()
        self._try_pending()
        return response

    # --- ticks

    def _on_timer(self) -> None:
        if self.active:
            self._tick(self._now_ns())

    def _try_pending(self) -> None:
        """Lockstep: do the waiting tick once it has everything it needs."""
        if self._pending is None or not self.active:
            return
        stamp_ns = self._pending[0]
        if self._cloud_ns >= stamp_ns and self._gateway.can_tick(stamp_ns):
            self._tick(stamp_ns)

    def _on_patience(self) -> None:
        if self._pending is None or self._gateway.mode is Mode.IDLE or not self.active:
            return
        if time.monotonic() - self._pending[1] >= self._patience_s:
            missing = "cloud" if self._cloud_ns < self._pending[0] else "chunk"
            self._note(f"no {missing} came for the tick at {self._pending[0] * 1e-9:.3f} s")
            self._tick(self._pending[0])

    def _tick(self, now_ns: int) -> None:
        self._pending = None
        tick = self._gateway.tick(now_ns)
        if tick is None:
            return
        if tick.send:
            self._send(tick)
        self._executed.publish(self._executed_message(tick))
        if tick.hold != self._holding or (tick.hold and tick.reason != self._reason):
            self._holding, self._reason = tick.hold, tick.reason if tick.hold else ""
            self._publish_status()

    def _send(self, tick: Tick) -> None:
        action = self._task.action
        if action.command_type == "geometry_msgs/msg/PoseStamped":
            pose = self._pose
            pose.header.stamp.sec, pose.header.stamp.nanosec = split_ns(tick.stamp_ns)
            for axis, value in zip(action.names, tick.target.tolist(), strict=True):
                setattr(pose.pose.position, axis, value)
            self._commands.publish(pose)
        else:
            self._commands.publish(Float64MultiArray(data=tick.target.tolist()))

    def _executed_message(self, tick: Tick) -> ExecutedAction:
        msg = ExecutedAction(
            mode=int(tick.mode),
            hold=tick.hold,
            limited=tick.limited,
            action=tick.action.tolist(),
            target=tick.target.tolist(),
            feedback=tick.feedback.tolist(),
            reason=tick.reason,
        )
        msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(tick.stamp_ns)
        if self._task.action.is_cartesian:
            msg.header.frame_id = self._task.base_frame
        if tick.planned is not None:
            chunk = tick.planned.chunk
            msg.source, msg.policy_version = chunk.source, chunk.policy_version
            msg.chunk_sequence, msg.chunk_index = chunk.sequence, tick.planned.index
            msg.raw_action = tick.planned.action.tolist()
        return msg

    # --- status

    def _on_status_timer(self) -> None:
        now, (since, count) = time.monotonic(), self._rate_from
        self._rate_hz = (self._gateway.ticks - count) / max(now - since, 1e-6)
        self._rate_from = (now, self._gateway.ticks)
        if self._gateway.mode is Mode.IDLE:
            self._diagnostics.report(OK, "idle: set a mode to move the robot")
        elif time.monotonic() < self._refused_until:
            self._diagnostics.report(WARN, self._refusal)
        elif self._holding:
            self._diagnostics.report(WARN, f"holding: {self._reason}")
        else:
            self._diagnostics.report(OK, "running")
        self._diagnostics.update(
            {
                "ticks": self._gateway.ticks,
                "holds": self._gateway.holds,
                "limited actions": self._gateway.limited,
                "refused chunks": self._gateway.dropped_chunks,
                "late actions": self._gateway.dropped_actions,
            }
        )
        self._publish_status()

    def _publish_status(self) -> None:
        gateway = self._gateway
        msg = GatewayStatus(
            mode=int(gateway.mode),
            holding=self._holding,
            reason=self._reason,
            ticks=gateway.ticks,
            holds=gateway.holds,
            limited=gateway.limited,
            dropped_chunks=gateway.dropped_chunks,
            rate_hz=self._rate_hz,
        )
        msg.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(msg)
