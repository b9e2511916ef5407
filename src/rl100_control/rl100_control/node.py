"""The command gateway as a ROS node: a lifecycle shell around Gateway.

In real time a thread of its own ticks on absolute deadlines, and the executor's thread takes
messages; ``_lock`` is between them. The grid of the deadlines moves slowly to where ticks come
right after the policy's chunks. A stop is sent by the thread that hears of it, at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from rl100_contracts.chunks import chunk_from_message
from rl100_contracts.decode import decode_feedback, decode_joints, message_stamp_ns, peek_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import task_folder
from rl100_control.arrivals import Arrivals, NextChunk
from rl100_control.gateway import Gateway
from rl100_control.kinematics import TargetCheck
from rl100_control.lockstep import WaitingTick
from rl100_control.outgoing import COMMANDS, executed_message
from rl100_control.status import StatusReporter
from rl100_control.tick import MODES, Mode, Tick
from rl100_msgs.msg import ActionChunk, EpisodeEvent, ExecutedAction, GatewayStatus, RewardEvent
from rl100_msgs.srv import SetMode
from rl100_node.executors import fail_soon
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.messages import message_class
from rl100_node.parameters import declare, declare_lockstep, declare_realtime, declare_task
from rl100_node.qos import command_qos, episode_qos, latched_qos, qos_for
from rl100_node.realtime import DeadlineLoop, LoopFigures

STATUS_PERIOD_S = 0.5


class GatewayNode(AutostartLifecycleNode):
    """The only publisher of robot commands."""

    def __init__(self) -> None:
        super().__init__("rl100_gateway")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        text = "who may move the robot at the start"
        mode = declare(self, "mode", "idle", text, choices=tuple(MODES))
        text = "an operator arms the policy before it moves the robot (not in lockstep)"
        arming = declare(self, "arming", True, text)
        text = "a take-over ends after so long without an action of the operator, s; 0: by set_mode"
        release_s = declare(self, "takeover_release_s", 0.0, text, low=0.0, high=60.0)
        patience_s = declare(
            self, "lockstep_timeout_s", 5.0, "lockstep: hold after so long, s", low=0.1, high=600.0
        )
        self._look_every_s = min(patience_s / 4, 0.5)
        self._realtime = declare_realtime(self)
        self._kinematics: TargetCheck | None = None
        if self._task.robot is not None:
            folder = task_folder(self.get_parameter("task").value)
            self._kinematics = TargetCheck(self._task, folder, self._now_ns)
        self._gateway = Gateway(
            self._task,
            MODES[mode],
            lockstep=self._lockstep,
            arming=arming,
            release_s=release_s,
            checks=[self._kinematics] if self._kinematics else [],
        )
        self._arrivals = Arrivals(self._task.control.period_ns)
        self._lock = threading.RLock()
        self._next_chunk = NextChunk(self._lock, self._task.control.period_ns)
        self._loop: DeadlineLoop | None = None
        self._feedback_ns = 0
        frame = "image" if self._task.observation.cloud is None else "cloud"
        self._waiting = WaitingTick(self._gateway, self._kinematics, frame, patience_s)

    def setup(self) -> None:
        """Make publishers, subscriptions, the services and the timers."""
        task = self._task
        kind = message_class(task.action.command_type)
        self._command_of = COMMANDS[task.action.command_type]
        self._commands = self.advertise(kind, task.action.command, command_qos())
        executed = task.streams[task.action_stream]
        self._executed = self.advertise(ExecutedAction, executed.topic, command_qos())
        status = self.advertise(GatewayStatus, "/rl100/gateway_status", latched_qos())
        kinematics = self._kinematics.describe() if self._kinematics else None
        self._status = StatusReporter(
            self,
            self._gateway,
            status,
            task.action.command,
            self._figures,
            kinematics or "none: the task has no key robot",
        )
        self.on_cleanup_do(self._status.diagnostics.destroy)
        self._listen(task.action.feedback, self._on_feedback)
        if task.robot is not None:
            self._listen(task.robot.joint_states, self._on_joints)
        for topic, teleop in (("/rl100/action_chunk", False), ("/rl100/teleop_chunk", True)):
            self.subscribe(ActionChunk, topic, self._chunk_taker(teleop), command_qos())
        self.subscribe(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self.subscribe(RewardEvent, "/rl100/reward", self._on_reward, command_qos())
        if task.safety.deadman != "off":
            self.subscribe(Bool, "/rl100/deadman", self._on_deadman, command_qos())
        self.serve(SetMode, "/rl100_gateway/set_mode", self._on_set_mode)
        self.serve(Trigger, "/rl100_gateway/arm", self._on_arm)
        self.every(STATUS_PERIOD_S, self._status.on_timer)
        if self._lockstep:
            self._follow_frames()
            self.every(self._look_every_s, self._on_patience)

    def start(self) -> None:
        """Begin to tick."""
        with self._lock:
            self._gateway.begin()
        if not self._lockstep:
            self._loop = DeadlineLoop(
                self._on_deadline,
                self._task.control.period_ns,
                settings=self._realtime,
                name="gateway",
                on_failure=self._on_failure,
            )
            self._status.refused = self._loop.start()
            for refusal in self._status.refused:
                self.get_logger().warning(refusal)
        self._status.publish()

    def halt(self) -> None:
        """Send a last hold and nothing more; the robot's own command time-out holds it then."""
        figures = self._figures()
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
            self._fall_silent("the gateway ends")
        self._waiting.forget()
        if self._status.report.ticks:
            self.get_logger().info(self._status.report.text(figures))

    def _figures(self) -> LoopFigures | None:
        return None if self._loop is None else self._loop.figures()

    def _on_failure(self, error: BaseException) -> None:
        # No tick comes any more, and the last velocity must not go on until the process has ended.
        with suppress(Exception), self._lock:
            self._fall_silent("the control loop failed")
        fail_soon(self, error)

    def _follow_frames(self) -> None:
        """Lockstep: no tick ends before its cloud (or image) is there."""
        stream = self._task.streams[self._task.observation.frame_stream]
        qos, kind = qos_for(stream, True), message_class(stream.type)
        # Raw: only the stamp matters, and unpacking each frame would cost more than the tick.
        subscription = self.create_subscription(kind, stream.topic, self._on_frame, qos, raw=True)
        self.on_cleanup_do(lambda: self.destroy_subscription(subscription))

    # --- inputs

    def _now_ns(self) -> int:
        return self._feedback_ns if self._lockstep else self.get_clock().now().nanoseconds

    def _listen(self, name: str, take: Callable[[Any], None]) -> None:
        """Subscribe to a stream of the task."""
        stream = self._task.streams[name]
        qos = qos_for(stream, self._lockstep)
        self.subscribe(message_class(stream.type), stream.topic, take, qos)

    def _ask(self, action: Callable[[], str]) -> bool:
        """Do ``action`` under the lock; a refusal is noted. Returns whether it was accepted."""
        try:
            with self._lock:
                problem = action()
        except ContractError as error:
            problem = str(error)
        if problem:
            self._status.note(problem)
        return not problem

    def _on_feedback(self, msg: Any) -> None:
        stamp_ns = message_stamp_ns(msg)
        if not self._ask(
            lambda: self._gateway.on_feedback(stamp_ns, decode_feedback(self._task, msg))
        ):
            return
        self._feedback_ns = stamp_ns
        if self._lockstep and self.active:
            self._waiting.begin(stamp_ns)
            self._try_waiting()

    def _on_joints(self, msg: Any) -> None:
        def take() -> str:
            assert self._kinematics is not None
            self._kinematics.on_joints(message_stamp_ns(msg), decode_joints(self._task, msg))
            return ""

        if self._ask(take):
            self._try_waiting()

    def _on_frame(self, data: bytes) -> None:
        self._waiting.on_frame(peek_stamp_ns(data))
        self._try_waiting()

    def _chunk_taker(self, teleop: bool) -> Callable[[ActionChunk], None]:
        def take(msg: ActionChunk) -> None:
            taken = self._ask(
                lambda: self._gateway.on_chunk(
                    chunk_from_message(msg, self._task), self._now_ns(), teleop=teleop
                )
            )
            if taken and not teleop and self._loop is not None:
                now_ns = time.monotonic_ns()
                with self._lock:
                    self._next_chunk.came(now_ns)
                point_ns = self._arrivals.add(now_ns)
                if point_ns is not None:
                    self._loop.align(point_ns)
            self._try_waiting()

        return take

    def _on_episode(self, msg: EpisodeEvent) -> None:
        # In lockstep the stamps alone separate the episodes: an event that is late must not
        # forget the first chunk of the episode that has begun.
        if msg.event == EpisodeEvent.STARTED and not self._lockstep:
            with self._lock:
                self._gateway.new_episode()

    # --- what a person asks for

    def _on_reward(self, msg: RewardEvent) -> None:
        if msg.kind == RewardEvent.STOP:
            with self._lock:
                self._gateway.stop(f"'{msg.labeller or 'an operator'}' pressed stop")
                self._act_at_once()
            self._status.tell()

    def _on_deadman(self, msg: Bool) -> None:
        with self._lock:
            self._gateway.on_deadman(bool(msg.data))
            if not msg.data and not self._status.holding:
                self._act_at_once()

    def _on_set_mode(
        self, request: SetMode.Request, response: SetMode.Response
    ) -> SetMode.Response:
        if request.mode not in list(Mode):
            response.message = f"mode {request.mode} is unknown: use ExecutedAction.MODE_*"
        else:
            with self._lock:
                mode, clear = Mode(request.mode), bool(request.clear_stop)
                if mode is Mode.IDLE and not self._gateway.refuses(mode, clear_stop=clear):
                    self._fall_silent("the mode is idle from now on")
                response.message = self._gateway.set_mode(mode, clear_stop=clear)
                if self._gateway.mode is Mode.STOPPED:
                    self._act_at_once()
        response.accepted = not response.message
        response.mode = int(self._gateway.mode)
        self._status.tell()
        self._try_waiting()
        return response

    def _on_arm(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            response.message = self._gateway.arm()
        response.success = not response.message
        self._status.tell()
        return response

    # --- ticks

    def _act_at_once(self) -> None:
        """Between two ticks: what was just heard must not wait for the next one."""
        if self._lockstep:
            self._try_waiting()
        elif self.active:
            self._tick(self._now_ns())

    def _on_deadline(self, wanted_ns: int) -> None:
        """In the loop's thread; ``wanted_ns``: when the tick should have begun, steady time."""
        with self._lock:
            self._next_chunk.wait(wanted_ns, self._arrivals.patience_ns)
            # After a stall plans are older, not the time that they are judged by.
            late_ns = min(time.monotonic_ns() - wanted_ns, self._task.control.period_ns)
            self._tick(self._now_ns() - late_ns)  # plans are followed on the even grid

    def _try_waiting(self) -> None:
        """Lockstep: do the waiting tick once it has everything it needs."""
        stamp_ns = self._waiting.ready() if self.active else None
        if stamp_ns is not None:
            self._tick(stamp_ns)

    def _on_patience(self) -> None:
        overdue = self._waiting.overdue() if self.active else None
        if overdue is not None:
            stamp_ns, missing = overdue
            self._status.note(f"no {missing} came for the tick at {stamp_ns * 1e-9:.3f} s")
            self._tick(stamp_ns)

    def _tick(self, now_ns: int) -> None:
        self._waiting.forget()
        tick = self._gateway.tick(now_ns)
        if tick is not None:
            self._send(tick)

    def _fall_silent(self, reason: str) -> None:
        """A robot that follows velocities would go on with the last one."""
        if not self._lockstep and self.context.ok():
            tick = self._gateway.last_hold(self._now_ns(), reason)
            if tick is not None:
                self._send(tick)

    def _send(self, tick: Tick) -> None:
        if tick.send:
            self._commands.publish(self._command_of(self._task, tick))
        self._executed.publish(executed_message(self._task, tick))
        self._status.ticked(tick)
