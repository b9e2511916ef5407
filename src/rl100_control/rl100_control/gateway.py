"""What the gateway does in each control tick. No ROS in here.

Whatever comes in, a command leaves only within the task's limits, only after the robot's position
is known, and only in a mode that allows it. Everything else is a hold at the last target. When a
plan just ends, the robot comes to rest within its limits; in all other holds it stops at once.
Where no target is surely the place where the robot is, a hold sends none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from rl100_contracts.chunks import Chunk
from rl100_contracts.motion import CommandShaper
from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.arming import Arming
from rl100_control.deadman import Deadman
from rl100_control.feedback import GAP_NS, Blocks, Feedback, News
from rl100_control.plan import Plan, Planned
from rl100_control.shadow import ShadowMotion
from rl100_control.tick import FloatArray, Mode, Shadow, Tick

# Looks at a target before it is sent: (target, feedback), both float64 (d,), m or rad; returns one
# sentence that says why it must not be sent, or an empty string.
Check = Callable[[FloatArray, FloatArray], str]

# Commands of this type are velocities: a hold is none, wherever the robot is.
VELOCITIES = "geometry_msgs/msg/TwistStamped"
# A person moves the robot in these, when anybody does.
BY_HAND = (Mode.TELEOP, Mode.TAKEOVER, Mode.SHADOW)


class Gateway:
    """Arbitration, splicing and safety of robot commands. Not thread-safe.

    Args:
        task: the contract; its limits hold for every command.
        mode: first mode.
        lockstep: stamps are simulated, so the age of feedback means nothing, nothing has to be
            armed, and nobody takes over but by ``set_mode``.
        arming: the policy moves nothing before ``arm``, at the start, after each stop, and after
            it was started again itself.
        release_s: a take-over ends after so long without an action of the operator; 0: by
            ``set_mode`` only.
        checks: asked before each target is sent; the first sentence makes the tick a hold.
        steady_ns: time that no jump of the wall clock touches, ns.

    Attributes:
        arming: whether the policy may move the robot in its mode.
        intruder: a sentence about somebody else who sends commands to the robot, or empty. In real
            time nothing is sent meanwhile: two targets in turn would shake the robot.
        no_feedback: how a sentence begins about feedback that is missing; names the topic.
    """

    def __init__(
        self,
        task: Task,
        mode: Mode,
        *,
        lockstep: bool = False,
        arming: bool = False,
        release_s: float = 0.0,
        checks: Sequence[Check] = (),
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._task = task
        self._checks, self._steady_ns = tuple(checks), steady_ns
        self._lockstep = lockstep
        self.arming = Arming(arming and not lockstep)
        self._release_ns = round(release_s * NANOSECONDS)
        self._deadman = (
            Deadman(task.safety.deadman_timeout_s) if task.safety.deadman != "off" else None
        )
        period = task.control.period_ns
        self._period_s = period / NANOSECONDS
        self._timeout_ns = round(task.safety.feedback_timeout_s * NANOSECONDS)
        self._observation_ns = round(task.safety.observation_timeout_s * NANOSECONDS)
        # A target is a place to be; no velocity keeps a robot wherever it is.
        self._by_velocity = task.action.command_type == VELOCITIES
        self._shaper = CommandShaper(task)
        blend = not task.action.is_delta and not lockstep
        self._plans = {
            Mode.TELEOP: Plan(period),
            Mode.POLICY: Plan(
                period,
                lock_phase=not lockstep,
                blend=blend,
                on_restart=self.arming.policy_restarted,
            ),
        }
        self._measured = Feedback(task, lockstep=lockstep)
        self.no_feedback = f"no feedback on {task.streams[task.action.feedback].topic}"
        self._synced = False
        self._sent = False  # something that a last hold has to end
        self._blocks = Blocks(steady_ns)
        self.stop_reason = "the gateway began stopped" if mode is Mode.STOPPED else ""
        self._hold_since_ns: int | None = None
        self._operator_ns: int | None = None  # when a person last moved the robot in a take-over
        self._shadows = ShadowMotion(task)
        self.mode, self.intruder = mode, ""
        self.ticks = self.holds = self.limited = 0

    # --- inputs

    def on_feedback(self, stamp_ns: int, position: FloatArray) -> str:
        """Take a measured position (d,) over; returns why not, or an empty string."""
        before_ns = self._measured.stamp_ns
        news = self._measured.take(stamp_ns, position)
        if isinstance(news, str):
            return news
        if news is not News.NEXT:
            self._synced = False
        for plan in self._plans.values():
            if news is News.GAP:
                plan.drop_observed_until(before_ns)
            elif news is News.RESTARTED:
                plan.forget()
        return ""

    @property
    def _feedback(self) -> FloatArray | None:
        return self._measured.position

    def _plan_of(self, mode: Mode) -> Plan | None:
        return self._plans.get(Mode.TELEOP if mode in BY_HAND else mode)

    def on_chunk(self, chunk: Chunk, now_ns: int, *, teleop: bool) -> str:
        """Take a checked chunk over; returns why not, or an empty string."""
        if self._lockstep:
            # The chunk may overtake the feedback of its own tick, also after a jump of the clock.
            now_ns = max(now_ns, chunk.observation_ns)
        elif not teleop and now_ns - chunk.observation_ns > self._observation_ns:
            return (
                f"chunk {chunk.sequence} of '{chunk.source}' was planned on an observation that is "
                f"{(now_ns - chunk.observation_ns) * 1e-9:.2f} s old "
                f"(safety.observation_timeout_s is {self._task.safety.observation_timeout_s})"
            )
        refusal = self._plans[Mode.TELEOP if teleop else Mode.POLICY].add(chunk, now_ns)
        if teleop and not self._lockstep and not refusal:
            if self.mode is Mode.POLICY:  # a person moves the robot: that is a take-over
                self.mode = Mode.TAKEOVER
                self._plans[Mode.POLICY].clear()
            self._operator_ns = self._steady_ns()
        return refusal

    def on_deadman(self, held: bool) -> None:
        """Take a message of the dead-man switch."""
        if self._deadman is not None:
            self._deadman.receive(held)
            if not held:
                self._let_go(self._deadman.problem())

    def _let_go(self, problem: str) -> None:
        """The dead-man switch is not held: once that may be a stop, whatever else is wrong."""
        assert self._deadman is not None
        was_held, self._deadman.was_held = self._deadman.was_held, False
        moving = self.mode not in (Mode.IDLE, Mode.STOPPED)
        if was_held and moving and self._task.safety.deadman == "stop":
            self.stop(problem)

    def new_episode(self) -> None:
        """Actions that were planned before an episode must not be executed in it."""
        for plan in self._plans.values():
            plan.clear()

    def stop(self, reason: str) -> None:
        """Hold until an operator clears the stop."""
        self.mode, self.stop_reason = Mode.STOPPED, reason
        self._synced = False
        self.arming.disarm()
        self.new_episode()

    def begin(self) -> None:
        """Before the first tick, and before the first one after a pause."""
        self.arming.disarm()
        # Somebody else may have moved the robot meanwhile.
        self._synced = self._sent = False
        if not self._lockstep:
            self.new_episode()

    def refuses(self, mode: Mode, *, clear_stop: bool = False) -> str:
        """Why ``set_mode`` would not change the mode, or an empty string."""
        if self.mode is not Mode.STOPPED or mode is Mode.STOPPED or clear_stop:
            return ""
        return (
            f"stopped ({self.stop_reason}): clear the stop (clear_stop: true) when its reason is "
            "gone"
        )

    def set_mode(self, mode: Mode, *, clear_stop: bool = False) -> str:
        """Change the mode; returns why not, or an empty string."""
        if refusal := self.refuses(mode, clear_stop=clear_stop):
            return refusal
        if mode is Mode.STOPPED:
            self.stop("an operator stopped the robot")
            return ""
        if self.mode in (Mode.IDLE, Mode.STOPPED):
            self._synced = False  # as in ``begin``
            self._blocks.forget()
            if self._deadman is not None and self._deadman.problem():
                self._deadman.was_held = False  # let go when nothing could move
        self._operator_ns = None
        if mode is not self.mode and not self._lockstep:
            # In lockstep the stamps alone decide: the world waits, so no plan is out of date.
            self.new_episode()
        self.mode = mode
        return ""

    def arm(self) -> str:
        """An operator lets the policy move the robot; returns why not, or an empty string."""
        if self.mode is Mode.STOPPED:
            return f"stopped ({self.stop_reason}): clear the stop first"
        if self._feedback is None:
            return "the robot's position is not known yet: is its driver running?"
        if not self.armed:
            # What was planned before was never meant to be executed.
            self.new_episode()
        self.arming.arm()
        return ""

    # --- output

    @property
    def armed(self) -> bool:
        """Whether the policy may move the robot in its mode."""
        return self.arming.armed

    @property
    def dropped_chunks(self) -> int:
        """Chunks that were refused since the start."""
        return sum(plan.dropped_chunks for plan in self._plans.values())

    @property
    def dropped_actions(self) -> int:
        """Actions that were not executed because they were late."""
        return sum(plan.dropped_actions for plan in self._plans.values())

    def can_tick(self, stamp_ns: int) -> bool:
        """Lockstep: whether the tick at ``stamp_ns`` needs nothing more (else wait for a chunk)."""
        plan = self._plan_of(self.mode)
        if plan is None:
            return self.mode is Mode.STOPPED  # in idle the tick waits for a mode
        return plan.covers(stamp_ns)

    def last_hold(self, now_ns: int, reason: str) -> Tick | None:
        """What ends motion before the gateway falls silent; None: it has moved nothing."""
        if self.mode is Mode.IDLE or not self._sent:
            return None
        self._sent = False
        self._synchronise()
        sure = not self.intruder and not self._measured.doubt and self._may_hold
        return self._hold(now_ns, reason, sure or self._by_velocity, None)

    def tick(self, now_ns: int) -> Tick | None:
        """Decide what to send at ``now_ns``; None: nothing may be sent (idle, or no feedback)."""
        if self.mode is Mode.IDLE or self._feedback is None:
            return None
        tick = self._decide(now_ns, self._feedback)
        self._sent |= tick.send
        return tick

    def _decide(self, now_ns: int, feedback: FloatArray) -> Tick:
        self.ticks += 1
        operator_ns = self._operator_ns if self.mode is Mode.TAKEOVER else None
        if operator_ns is not None and 0 < self._release_ns < self._steady_ns() - operator_ns:
            self.set_mode(Mode.POLICY)
        plan = self._plan_of(self.mode)
        # Taken also when it cannot be executed: an action is for one tick only.
        planned = plan.due(now_ns) if plan is not None else None
        forbidden = self._forbidden(now_ns)  # first: what stops the robot latches in any case
        problem, send = self._problem(now_ns, feedback)
        reason = problem or forbidden
        if self.mode is Mode.STOPPED:
            reason = self.stop_reason
        # Where the robot is not known, nothing can deviate from it.
        shadow = None if problem else self._shadow(now_ns, feedback, planned)
        if reason:
            return self._hold(now_ns, reason, send, shadow)
        held_ns = 0 if self._hold_since_ns is None else now_ns - self._hold_since_ns
        if planned is not None and held_ns > GAP_NS:
            # After a long hold motion starts from where the robot is, not from an old target.
            self._shaper.sync(feedback)
        before = self._shaper.save()
        if planned is None:
            shaped = self._shaper.brake(self._period_s)
        else:
            shaped = self._shaper.shape(planned.action, self._period_s)
        for check in self._checks:
            if planned is None and not shaped.velocity.any():
                break  # it stands still
            if refusal := check(shaped.target, feedback):
                self._shaper.restore(before)
                return self._hold(now_ns, refusal, self._may_hold, shadow)
        if planned is None:
            self._count_hold(now_ns, at_rest=not shaped.velocity.any())
        else:
            self._hold_since_ns = None
            self.limited += shaped.limited
        limits = f"limited: {shaped.reason}" if shaped.limited else ""
        return Tick(
            now_ns,
            self.mode,
            shaped.target,
            shaped.velocity,
            feedback,
            shaped.action,
            planned,
            None if planned is None else shaped.planned,
            hold=planned is None,
            limited=shaped.limited and planned is not None,
            reason=limits if planned is not None else self._nothing_due(now_ns),
            send=planned is not None or self._may_hold,
            shadow=shadow,
        )

    def _problem(self, now_ns: int, feedback: FloatArray) -> tuple[str, bool]:
        """Why no action may be executed in this tick (empty: it may), and whether a hold is sent.

        Synchronises the target with the robot where that is due.
        """
        limit = self._task.limits.max_tracking_error
        self._synchronise()
        if self._shaper.beyond > limit:
            reason = "the robot is far outside its position limits: move it back by hand"
            return reason, self._by_velocity
        if not self._lockstep:
            age_ns = now_ns - self._measured.stamp_ns
            if reason := self.intruder or self._measured.doubt:
                return reason, self._by_velocity
            if age_ns > self._timeout_ns:
                reason = (
                    f"{self.no_feedback} for more than {self._task.safety.feedback_timeout_s} s"
                )
            elif age_ns < -self._timeout_ns:
                reason = "the feedback is stamped in the future: are the clocks in step?"
            elif self._blocks.waiting():
                reason = "the robot did not follow its target: motion goes on after a second"
            if reason:
                return reason, self._may_hold
        if self._error() <= limit:
            return "", self._may_hold
        if not self._lockstep and self._hold_since_ns is None and (block := self._blocks.add()):
            self.stop(block)
        self._shaper.sync(feedback)
        reason = f"the robot is more than {limit} away from its target (limits.max_tracking_error)"
        return reason, self._may_hold

    @property
    def _may_hold(self) -> bool:
        """Whether a hold is sent: outside the position limits only motion back is."""
        return self._by_velocity or self._shaper.beyond == 0.0

    def _synchronise(self) -> None:
        """Start from where the robot is, where the last target says nothing about that."""
        if not self._synced and self._feedback is not None:
            self._shaper.sync(self._feedback)
            self._synced = True

    def _forbidden(self, now_ns: int) -> str:
        """Why nobody, or not the policy, may move the robot now; empty: the mode decides."""
        if self.mode is Mode.STOPPED:
            return ""
        if self._deadman is not None and (problem := self._deadman.problem()):
            self._let_go(problem)
            return problem
        if self.mode is not Mode.POLICY:
            return ""
        if not self.armed:
            return self.arming.reason
        if self._plans[Mode.POLICY].contested(now_ns) and not self._lockstep:
            return "two policies publish on /rl100/action_chunk: end one of them"
        return ""

    def _nothing_due(self, now_ns: int) -> str:
        """Why there is no action."""
        if self._lockstep or self.mode is not Mode.POLICY:
            return "no action is due"
        return self._plans[Mode.POLICY].nothing_due(now_ns)

    def _shadow(self, now_ns: int, feedback: FloatArray, planned: Planned | None) -> Shadow | None:
        """What the policy would do now, where it does not move the robot."""
        if self.mode is Mode.SHADOW:
            planned = self._plans[Mode.POLICY].due(now_ns)
        elif self.mode is not Mode.POLICY or self.armed:
            return None
        if planned is None:
            return None
        return self._shadows.follow(planned, self._shaper.save(), feedback)

    def _error(self) -> float:
        """Largest distance between target and feedback over the axes, m or rad."""
        target, feedback = self._shaper.target, self._feedback
        assert target is not None and feedback is not None
        return float(np.max(np.abs(target - feedback)))

    def _count_hold(self, now_ns: int, *, at_rest: bool) -> None:
        self.holds += 1
        if not at_rest:
            self._hold_since_ns = None
        elif self._hold_since_ns is None:
            self._hold_since_ns = now_ns

    def _hold(self, now_ns: int, reason: str, send: bool, shadow: Shadow | None) -> Tick:
        """Stand still at once."""
        assert self._feedback is not None
        self._count_hold(now_ns, at_rest=True)
        target = self._shaper.hold()
        still = np.zeros_like(target)
        action = (still if self._task.action.is_delta else target).astype(np.float32)
        return Tick(
            now_ns,
            self.mode,
            target,
            still,
            self._feedback,
            action,
            hold=True,
            reason=reason,
            send=send,
            shadow=shadow,
        )
