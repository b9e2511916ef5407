"""What the gateway does in each control tick. No ROS in here.

Whatever comes in, a command leaves only within the task's limits, only after the robot's position
is known, and only in a mode that allows it. Everything else is a hold at the last target. When a
plan just ends, the robot comes to rest within its limits; in all other holds it stops at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from rl100_contracts.chunks import Chunk
from rl100_contracts.motion import CommandShaper
from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.deadman import Deadman
from rl100_control.plan import Plan, Planned
from rl100_control.tick import FloatArray, Mode, Shadow, Tick

# Looks at a target before it is sent: (target, feedback), both float64 (d,), m or rad; returns one
# sentence that says why it must not be sent, or an empty string.
Check = Callable[[FloatArray, FloatArray], str]

# Commands of this type are velocities: a hold is none, wherever the robot is.
VELOCITIES = "geometry_msgs/msg/TwistStamped"
# Feedback that was away for longer says nothing about what happened meanwhile.
GAP_NS = NANOSECONDS // 2
# A person moves the robot in these, when anybody does.
BY_HAND = (Mode.TELEOP, Mode.TAKEOVER, Mode.SHADOW)


class Gateway:
    """Arbitration, splicing and safety of robot commands. Not thread-safe.

    Args:
        task: the contract; its limits hold for every command.
        mode: first mode.
        lockstep: stamps are simulated, so the age of feedback means nothing, nothing has to be
            armed, and nobody takes over but by ``set_mode``.
        arming: the policy moves nothing before ``arm``, at the start and after each stop.
        release_s: a take-over ends after so long without an action of the operator; 0: by
            ``set_mode`` only.
        checks: asked before each target is sent; the first sentence makes the tick a hold.
        steady_ns: time that no jump of the wall clock touches, ns.
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
        self._needs_arming = arming and not lockstep
        self.armed = not self._needs_arming
        self._release_ns = round(release_s * NANOSECONDS)
        self._deadman = (
            Deadman(task.safety.deadman_timeout_s) if task.safety.deadman != "off" else None
        )
        period = task.control.period_ns
        self._period_s = period / NANOSECONDS
        self._timeout_ns = round(task.safety.feedback_timeout_s * NANOSECONDS)
        self._observation_ns = round(task.safety.observation_timeout_s * NANOSECONDS)
        self._shaper = CommandShaper(task)
        blend = not task.action.is_delta and not lockstep
        self._plans = {
            Mode.TELEOP: Plan(period),
            Mode.POLICY: Plan(period, lock_phase=not lockstep, blend=blend),
        }
        limit = np.asarray(task.limits.velocity)
        self._teleport = 3.0 * limit * self._period_s + task.limits.max_tracking_error / 2.0
        self._feedback: FloatArray | None = None
        self._feedback_ns = 0
        self._synced = False
        self._stop_reason = ""
        self._hold_since_ns: int | None = None
        self._operator_ns: int | None = None  # when a person last moved the robot in a take-over
        self._shadow_shaper = CommandShaper(task)
        self._shadowed: Chunk | None = None
        self.mode = mode
        self.ticks = self.holds = self.limited = 0

    # --- inputs

    def on_feedback(self, stamp_ns: int, position: FloatArray) -> str:
        """Take a measured position (d,) over; returns why not, or an empty string."""
        if position.shape != (self._task.action.dim,) or not np.isfinite(position).all():
            return "the robot's feedback is not finite"
        previous = self._feedback
        ahead_ns = stamp_ns - self._feedback_ns
        if previous is None:
            self._synced = False
        elif ahead_ns > GAP_NS:
            # The world went on without us, or is another one (a reset): so must the plans.
            self._synced = False
            for plan in self._plans.values():
                plan.drop_observed_until(self._feedback_ns)
        elif ahead_ns < -GAP_NS:
            # Not a message that overtook another: the clock (a simulator's) started again.
            self._synced = False
            for plan in self._plans.values():
                plan.forget()
        elif ahead_ns <= 0:
            return "the robot's feedback is not newer than what is known"
        elif (np.abs(position - previous) > self._teleport).any():
            self._synced = False
        self._feedback, self._feedback_ns = position, stamp_ns
        return ""

    def _plan_of(self, mode: Mode) -> Plan | None:
        return self._plans.get(Mode.TELEOP if mode in BY_HAND else mode)

    def on_chunk(self, chunk: Chunk, now_ns: int, *, teleop: bool) -> str:
        """Take a checked chunk over; returns why not, or an empty string."""
        if self._lockstep:
            # The chunk may overtake the feedback of its own tick, also after a jump of the clock.
            now_ns = max(now_ns, chunk.observation_ns)
        elif teleop:
            if self.mode is Mode.POLICY:
                self.set_mode(Mode.TAKEOVER)
            self._operator_ns = self._steady_ns()
        elif now_ns - chunk.observation_ns > self._observation_ns:
            return (
                f"chunk {chunk.sequence} of '{chunk.source}' was planned on an observation that is "
                f"{(now_ns - chunk.observation_ns) * 1e-9:.2f} s old "
                f"(safety.observation_timeout_s is {self._task.safety.observation_timeout_s})"
            )
        return self._plans[Mode.TELEOP if teleop else Mode.POLICY].add(chunk, now_ns)

    def on_deadman(self, held: bool) -> None:
        """Take a message of the dead-man switch."""
        if self._deadman is not None:
            self._deadman.receive(held)

    def new_episode(self) -> None:
        """Actions that were planned before an episode must not be executed in it."""
        for plan in self._plans.values():
            plan.clear()

    def stop(self, reason: str) -> None:
        """Hold until an operator clears the stop."""
        self.mode, self._stop_reason = Mode.STOPPED, reason
        self._synced = False
        self.disarm()
        self.new_episode()

    def begin(self) -> None:
        """Before the first tick, and before the first one after a pause."""
        self.disarm()
        # Somebody else may have moved the robot meanwhile.
        self._synced = False
        if not self._lockstep:
            self.new_episode()

    def set_mode(self, mode: Mode, *, clear_stop: bool = False) -> str:
        """Change the mode; returns why not, or an empty string."""
        if mode is Mode.STOPPED:
            self.stop("an operator stopped the robot")
            return ""
        if self.mode is Mode.STOPPED and not clear_stop:
            return (
                f"stopped ({self._stop_reason}): clear the stop (clear_stop: true) when its reason "
                "is gone"
            )
        if self.mode in (Mode.IDLE, Mode.STOPPED):
            self._synced = False  # as in ``begin``
        self._operator_ns = None
        if mode is not self.mode and not self._lockstep:
            # In lockstep the stamps alone decide: the world waits, so no plan is out of date.
            self.new_episode()
        self.mode = mode
        return ""

    def disarm(self) -> None:
        """The policy moves nothing until it is armed (again)."""
        self.armed = not self._needs_arming

    def arm(self) -> str:
        """An operator lets the policy move the robot; returns why not, or an empty string."""
        if self.mode is Mode.STOPPED:
            return f"stopped ({self._stop_reason}): clear the stop first"
        if self._feedback is None:
            return "the robot's position is not known yet: is its driver running?"
        if not self.armed:
            # What was planned before was never meant to be executed.
            self.new_episode()
        self.armed = True
        return ""

    # --- output

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
        if self.mode is Mode.IDLE or self._feedback is None or not self._synced:
            return None
        return self._hold(now_ns, reason, True, None)

    def tick(self, now_ns: int) -> Tick | None:
        """Decide what to send at ``now_ns``; None: nothing may be sent (idle, or no feedback)."""
        if self.mode is Mode.IDLE or self._feedback is None:
            return None
        self.ticks += 1
        operator_ns = self._operator_ns if self.mode is Mode.TAKEOVER else None
        if operator_ns is not None and 0 < self._release_ns < self._steady_ns() - operator_ns:
            self.set_mode(Mode.POLICY)
        plan = self._plan_of(self.mode)
        # Taken also when it cannot be executed: an action is for one tick only.
        planned = plan.due(now_ns) if plan is not None else None
        reason, send = self._problem(now_ns)
        reason = reason or self._forbidden(now_ns)
        if self.mode is Mode.STOPPED:
            reason = self._stop_reason
        shadow = self._shadow(now_ns, planned)
        if reason:
            return self._hold(now_ns, reason, send, shadow)
        held_ns = 0 if self._hold_since_ns is None else now_ns - self._hold_since_ns
        if planned is not None and held_ns > GAP_NS:
            # After a long hold motion starts from where the robot is, not from an old target.
            self._shaper.sync(self._feedback)
        before = self._shaper.save()
        if planned is None:
            shaped = self._shaper.brake(self._period_s)
        else:
            shaped = self._shaper.shape(planned.action, self._period_s)
        for check in self._checks:
            if planned is None and not shaped.velocity.any():
                break  # it stands still
            if refusal := check(shaped.target, self._feedback):
                self._shaper.restore(before)
                return self._hold(now_ns, refusal, True, shadow)
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
            self._feedback,
            shaped.action,
            planned,
            None if planned is None else shaped.planned,
            hold=planned is None,
            limited=shaped.limited and planned is not None,
            reason=limits if planned is not None else self._nothing_due(now_ns),
            shadow=shadow,
        )

    def _problem(self, now_ns: int) -> tuple[str, bool]:
        """Why no action may be executed in this tick (empty: it may), and whether a hold may.

        Synchronises the target with the robot where that is due.
        """
        assert self._feedback is not None
        limit = self._task.limits.max_tracking_error
        resync = not self._synced
        if resync:
            self._shaper.sync(self._feedback)
            self._synced = True
        age_ns = now_ns - self._feedback_ns
        if not self._lockstep and age_ns > self._timeout_ns:
            return f"no feedback for more than {self._task.safety.feedback_timeout_s} s", True
        if not self._lockstep and age_ns < -self._timeout_ns:
            return "the feedback is stamped in the future: are the clocks in step?", True
        if self._error() <= limit:
            return "", True
        if not resync:
            self._shaper.sync(self._feedback)
        if self._error() > limit:
            # The target is clipped into the limits, and going there would be a leap.
            reason = "the robot is far outside its position limits: move it back by hand"
            return reason, self._task.action.command_type == VELOCITIES
        reason = f"the robot is more than {limit} away from its target (limits.max_tracking_error)"
        return reason, True

    def _forbidden(self, now_ns: int) -> str:
        """Why nobody, or not the policy, may move the robot now; empty: the mode decides."""
        if self.mode is Mode.STOPPED:
            return ""
        if self._deadman is not None and (problem := self._deadman.problem()):
            if self._task.safety.deadman == "stop" and self._deadman.was_held:
                self._deadman.was_held = False
                self.stop(problem)
            return problem
        if self.mode is not Mode.POLICY:
            return ""
        if not self.armed:
            return "not armed: an operator lets the policy move the robot (rl100 arm)"
        if self._plans[Mode.POLICY].contested(now_ns) and not self._lockstep:
            return "two policies publish on /rl100/action_chunk: end one of them"
        return ""

    def _nothing_due(self, now_ns: int) -> str:
        """Why there is no action, said so that it changes only when the reason does."""
        if self._lockstep or self.mode is not Mode.POLICY:
            return "no action is due"
        last = self._plans[Mode.POLICY].last
        if last is None:
            return "no action is due: the policy has planned nothing yet"
        if last.stamps_ns[0] > now_ns:
            return "no action is due: the policy's plan begins later"
        return "no action is due: the policy's last plan has run out"

    def _shadow(self, now_ns: int, planned: Planned | None) -> Shadow | None:
        """What the policy would do now, where it does not move the robot."""
        if self.mode is Mode.SHADOW:
            planned = self._plans[Mode.POLICY].due(now_ns)
        elif self.mode is not Mode.POLICY or self.armed:
            return None
        if planned is None:
            return None
        assert self._feedback is not None
        if planned.chunk is not self._shadowed:
            # Each chunk starts from what the robot does, as it would if it were executed.
            self._shadow_shaper.restore(self._shaper.save())
            self._shadowed = planned.chunk
        shaped = self._shadow_shaper.shape(planned.action, self._period_s)
        deviation = float(np.max(np.abs(shaped.target - self._feedback)))
        return Shadow(planned, shaped.action, shaped.target, deviation)

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
