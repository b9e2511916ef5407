"""What the gateway does in each control tick. No ROS in here.

Whatever comes in, a command leaves only within the task's limits, only after the robot's position
is known, and only in a mode that allows it. Everything else is a hold at the last target.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.motion import CommandShaper
from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.plan import Plan, Planned

FloatArray = NDArray[np.float64]

# Feedback that was away for longer says nothing about what happened meanwhile.
GAP_NS = NANOSECONDS // 2


class Mode(IntEnum):
    """Who may move the robot (the values of rl100_msgs/ExecutedAction.MODE_*)."""

    IDLE = 0
    TELEOP = 1
    POLICY = 2
    TAKEOVER = 3
    STOPPED = 4


@dataclass(frozen=True)
class Tick:
    """What was done in one tick.

    Attributes:
        stamp_ns: of the tick, ns.
        mode: in which it was done.
        target: float64 (d,), m or rad.
        feedback: measured position, float64 (d,).
        action: what was really done, float32 (d,), task units; no motion when holding.
        planned: the action that was asked for; None when holding.
        hold: the robot is told to stay.
        limited: a limit changed the action.
        reason: why it held or limited; empty when it did neither.
        send: False: the robot must not even be told to stay.
    """

    stamp_ns: int
    mode: Mode
    target: FloatArray
    feedback: FloatArray
    action: NDArray[np.float32]
    planned: Planned | None
    hold: bool
    limited: bool
    reason: str
    send: bool = True


class Gateway:
    """Arbitration, splicing and safety of robot commands. Not thread-safe.

    Args:
        task: the contract; its limits hold for every command.
        mode: first mode.
        lockstep: stamps are simulated, so the age of feedback means nothing.
    """

    def __init__(self, task: Task, mode: Mode, *, lockstep: bool = False) -> None:
        self._task = task
        self._lockstep = lockstep
        self._period_s = task.control.period_ns / NANOSECONDS
        self._timeout_ns = round(task.safety.feedback_timeout_s * NANOSECONDS)
        self._shaper = CommandShaper(task)
        period = task.control.period_ns
        self._plans = {Mode.TELEOP: Plan(period), Mode.POLICY: Plan(period)}
        limit = np.asarray(task.limits.velocity)
        self._teleport = 3.0 * limit * self._period_s + task.limits.max_tracking_error / 2.0
        self._feedback: FloatArray | None = None
        self._feedback_ns = 0
        self._synced = False
        self._stop_reason = ""
        self._hold_since_ns: int | None = None
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
        return self._plans.get(Mode.TELEOP if mode is Mode.TAKEOVER else mode)

    def on_chunk(self, chunk: Chunk, now_ns: int, *, teleop: bool) -> str:
        """Take a checked chunk over; returns why not, or an empty string."""
        if self._lockstep:
            # The chunk may overtake the feedback of its own tick, also after a jump of the clock.
            now_ns = max(now_ns, chunk.observation_ns)
        return self._plans[Mode.TELEOP if teleop else Mode.POLICY].add(chunk, now_ns)

    def new_episode(self) -> None:
        """Actions that were planned before an episode must not be executed in it."""
        for plan in self._plans.values():
            plan.clear()

    def stop(self, reason: str) -> None:
        """Hold until an operator clears the stop."""
        self.mode, self._stop_reason = Mode.STOPPED, reason
        self._synced = False
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
            # Somebody else may have moved the robot meanwhile.
            self._synced = False
        if mode is not self.mode and not self._lockstep:
            # In lockstep the stamps alone decide: the world waits, so no plan is out of date.
            self.new_episode()
        self.mode = mode
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

    def tick(self, now_ns: int) -> Tick | None:
        """Decide what to send at ``now_ns``; None: nothing may be sent (idle, or no feedback)."""
        if self.mode is Mode.IDLE or self._feedback is None:
            return None
        self.ticks += 1
        plan = self._plan_of(self.mode)
        # Taken also when it cannot be executed: an action is for one tick only.
        planned = plan.due(now_ns) if plan is not None else None
        reason, send = self._problem(now_ns)
        if not reason and planned is None:
            reason = self._stop_reason if self.mode is Mode.STOPPED else "no action is due"
        if reason or planned is None:
            return self._hold(now_ns, reason, send)
        if self._hold_since_ns is not None and now_ns - self._hold_since_ns > GAP_NS:
            # After a long hold motion starts from where the robot is, not from an old target.
            self._shaper.sync(self._feedback)
        self._hold_since_ns = None
        shaped = self._shaper.shape(planned.action, self._period_s)
        self.limited += shaped.limited
        return Tick(
            now_ns,
            self.mode,
            shaped.target,
            self._feedback,
            shaped.action,
            planned,
            False,
            shaped.limited,
            f"limited: {shaped.reason}" if shaped.limited else "",
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
            return "the robot is far outside its position limits: move it back by hand", False
        reason = f"the robot is more than {limit} away from its target (limits.max_tracking_error)"
        return reason, True

    def _error(self) -> float:
        """Largest distance between target and feedback over the axes, m or rad."""
        target, feedback = self._shaper.target, self._feedback
        assert target is not None and feedback is not None
        return float(np.max(np.abs(target - feedback)))

    def _hold(self, now_ns: int, reason: str, send: bool) -> Tick:
        assert self._feedback is not None
        self.holds += 1
        if self._hold_since_ns is None:
            self._hold_since_ns = now_ns
        target = self._shaper.hold()
        still = np.zeros_like(target) if self._task.action.is_delta else target
        return Tick(
            now_ns,
            self.mode,
            target,
            self._feedback,
            still.astype(np.float32),
            None,
            True,
            False,
            reason,
            send,
        )
