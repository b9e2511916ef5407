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
    """What was done in one tick; ``reason`` says why it held or limited."""

    stamp_ns: int
    mode: Mode
    target: FloatArray
    feedback: FloatArray
    action: NDArray[np.float32]
    planned: Planned | None
    hold: bool
    limited: bool
    reason: str


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
        self._resync_reason = ""
        self._stop_reason = ""
        self.mode = mode
        self.ticks = self.holds = self.limited = 0

    # --- inputs

    def on_feedback(self, stamp_ns: int, position: FloatArray) -> str:
        """Take a measured position (d,) over; returns why not, or an empty string."""
        if position.shape != (self._task.action.dim,) or not np.isfinite(position).all():
            return "the robot's feedback is not finite"
        previous = self._feedback
        if previous is None or stamp_ns - self._feedback_ns > GAP_NS:
            self._lose_sync("feedback was away")
        elif stamp_ns <= self._feedback_ns:
            return "the robot's feedback is not newer than what is known"
        elif (np.abs(position - previous) > self._teleport).any():
            self._lose_sync("the robot jumped")
        self._feedback, self._feedback_ns = position, stamp_ns
        return ""

    def _lose_sync(self, reason: str) -> None:
        """The target must start again from where the robot is."""
        self._synced = False
        self._resync_reason = reason

    def _plan_of(self, mode: Mode) -> Plan | None:
        return self._plans.get(Mode.TELEOP if mode is Mode.TAKEOVER else mode)

    def on_chunk(self, chunk: Chunk, now_ns: int, *, teleop: bool) -> str:
        """Take a checked chunk over; returns why not, or an empty string."""
        return self._plans[Mode.TELEOP if teleop else Mode.POLICY].add(chunk, now_ns)

    def new_episode(self) -> None:
        """Actions that were planned before an episode must not be executed in it."""
        for plan in self._plans.values():
            plan.clear()

    def stop(self, reason: str) -> None:
        """Hold until an operator clears the stop."""
        self.mode, self._stop_reason = Mode.STOPPED, reason
        self._lose_sync(reason)
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
            self._lose_sync("motion starts")
        if mode is not self.mode:
            self.new_episode()
        self.mode = mode
        return ""

    # --- output

    @property
    def dropped_chunks(self) -> int:
        """Chunks that were refused since the start."""
        return sum(plan.dropped_chunks for plan in self._plans.values())

    def can_tick(self, stamp_ns: int) -> bool:
        """Lockstep: whether the tick at ``stamp_ns`` needs nothing more (else wait for a chunk)."""
        plan = self._plan_of(self.mode)
        return plan is None or plan.covers(stamp_ns)

    def tick(self, now_ns: int) -> Tick | None:
        """Decide what to send at ``now_ns``; None: nothing may be sent (idle, or no feedback)."""
        if self.mode is Mode.IDLE or self._feedback is None:
            return None
        self.ticks += 1
        if not self._synced:
            self._shaper.sync(self._feedback)
            self._synced = True
        reason = self._problem(now_ns)
        plan = self._plan_of(self.mode)
        planned = plan.due(now_ns) if plan is not None else None
        if not reason and planned is None:
            reason = self._stop_reason if self.mode is Mode.STOPPED else "no action is due"
        if reason or planned is None:
            return self._hold(now_ns, reason, planned)
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

    def _problem(self, now_ns: int) -> str:
        """Why no action may be executed in this tick, or an empty string."""
        assert self._feedback is not None
        if not self._lockstep and now_ns - self._feedback_ns > self._timeout_ns:
            return f"no feedback for more than {self._task.safety.feedback_timeout_s} s"
        target = self._shaper.target
        assert target is not None
        error = float(np.max(np.abs(target - self._feedback)))
        if error > self._task.limits.max_tracking_error:
            self._shaper.sync(self._feedback)
            return f"the robot is {error:.3f} away from its target (limits.max_tracking_error)"
        return ""

    def _hold(self, now_ns: int, reason: str, planned: Planned | None) -> Tick:
        assert self._feedback is not None
        self.holds += 1
        target = self._shaper.hold()
        still = np.zeros_like(target) if self._task.action.is_delta else target
        return Tick(
            now_ns,
            self.mode,
            target,
            self._feedback,
            still.astype(np.float32),
            planned,
            True,
            False,
            reason,
        )
