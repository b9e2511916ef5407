"""From actions to commands within the task's limits: used by the gateway and by direct simulation.

Every target that ``shape`` or ``brake`` gives keeps the limits of position, velocity, acceleration
and jerk (of the differences of successive targets, at a constant control period), whatever comes
in; braking in time before a position limit included. ``hold`` stands still at once: a stop goes
before the limits of acceleration and jerk. A robot that starts outside its position limits comes
back within the other limits, and never goes farther out: a target inside would be a leap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.jerk import AxisLimits, approach_velocity, braking_velocity, next_acceleration
from rl100_contracts.task import NANOSECONDS, Task

FloatArray = NDArray[np.float64]
# Target, velocity, acceleration and last goal; the arrays are never changed in place.
State = tuple[FloatArray | None, FloatArray, FloatArray, FloatArray | None]
# Name of a limit, values before it and after it.
Change = tuple[str, FloatArray, FloatArray]

TOLERANCE = 1e-9
# Of the fastest step: no farther outside its position limits a robot is measured for its noise.
EDGE = 0.1


class NotSynced(RuntimeError):
    """The shaper does not know where the robot is: call ``sync`` first."""


@dataclass(frozen=True)
class Shaped:
    """One limited command.

    Attributes:
        action: what was really done, float32 (d,), task units (for delta spaces the step taken).
        target: float64 (d,), m or rad.
        limited: True when a limit changed the action.
        reason: which limits changed it; empty when none did.
        planned: float64 (d,), m or rad: the target that the action asked for, before the limits.
        velocity: float64 (d,), m/s or rad/s: (target - target before) / dt.
    """

    action: NDArray[np.float32]
    target: FloatArray
    limited: bool
    reason: str
    planned: FloatArray
    velocity: FloatArray


class CommandShaper:
    """Turns actions into targets within the limits of the task. Not thread-safe."""

    def __init__(self, task: Task) -> None:
        action, limits = task.action, task.limits
        self._is_delta = action.is_delta
        # Steps of joints and positions add up; rotations are composed.
        self._turns = action.coordinates if action.turns_tool else None
        self._low = np.asarray(action.low, dtype=np.float64)
        self._high = np.asarray(action.high, dtype=np.float64)
        self._position_low = np.asarray(limits.position_low, dtype=np.float64)
        self._position_high = np.asarray(limits.position_high, dtype=np.float64)
        self._velocity_limit = np.asarray(limits.velocity, dtype=np.float64)
        self._acceleration_limit = np.asarray(limits.acceleration, dtype=np.float64)
        self._edge = EDGE * self._velocity_limit * task.control.period_ns / NANOSECONDS
        values = zip(
            limits.position_low,
            limits.position_high,
            limits.velocity,
            limits.acceleration,
            limits.jerk,
            strict=True,
        )
        self._axes = [AxisLimits(*axis) for axis in values]
        self._jerk_free_s = limits.jerk_free_s
        self._target: FloatArray | None = None
        self._goal: FloatArray | None = None
        self._velocity = self._acceleration = np.zeros(action.dim)

    @property
    def target(self) -> FloatArray | None:
        """Last target, float64 (d,), or None before the first sync."""
        return None if self._target is None else self._target.copy()

    @property
    def beyond(self) -> float:
        """How far the last target is outside the position limits, m or rad; 0.0: it is inside."""
        if self._target is None:
            return 0.0
        inside = np.clip(self._target, self._position_low, self._position_high)
        return float(np.abs(self._target - inside).max())

    def save(self) -> State:
        """What ``restore`` needs to undo everything that is done from now on."""
        return self._target, self._velocity, self._acceleration, self._goal

    def restore(self, state: State) -> None:
        """Go back to a saved state: what was shaped since was not executed."""
        self._target, self._velocity, self._acceleration, self._goal = state

    def sync(self, position: FloatArray) -> None:
        """Start from a measured position (d,), at rest; just outside the limits: from the limit."""
        position = np.asarray(position, dtype=np.float64)
        if position.shape != self._low.shape or not np.isfinite(position).all():
            raise ValueError(f"a position needs {self._low.size} finite values, got {position}")
        inside = np.clip(position, self._position_low, self._position_high)
        self._target = np.where(np.abs(position - inside) <= self._edge, inside, position)
        self._rest()

    def _rest(self) -> None:
        self._velocity = self._acceleration = np.zeros_like(self._low)
        self._goal = None

    def hold(self) -> FloatArray:
        """Stay at the last target, at rest at once; returns it."""
        if self._target is None:
            raise NotSynced("hold before the first sync")
        self._rest()
        return self._target.copy()

    def _after(self, step: FloatArray) -> FloatArray:
        assert self._target is not None
        return self._turns.add(self._target, step) if self._turns else self._target + step

    def _step_from(self, before: FloatArray) -> FloatArray:
        assert self._target is not None
        return self._turns.step(before, self._target) if self._turns else self._target - before

    def brake(self, dt: float) -> Shaped:
        """Come to rest within the limits (at rest: stay); ``dt``: time since the last target, s."""
        if self._target is None:
            raise NotSynced("brake before the first sync")
        before, self._goal = self._target, None
        self._advance(np.zeros_like(before), dt)
        return self._shaped(before, before, [])

    def shape(self, action: NDArray[np.floating], dt: float) -> Shaped:
        """Limit one action.

        Args:
            action: (d,), task units; must be finite.
            dt: time since the last target, s.

        Raises:
            NotSynced: before the first sync.
            ValueError: wrong shape or not finite.
        """
        before = self._target
        if before is None:
            raise NotSynced("shape before the first sync")
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            raise ValueError(f"an action needs {self._low.size} finite values, got {wanted}")
        clipped = np.clip(wanted, self._low, self._high)
        goal = self._after(clipped) if self._is_delta else clipped
        inside = np.clip(goal, self._position_low, self._position_high)

        velocity = (inside - before) / dt
        landing = velocity if self._is_delta else self._landing(inside, velocity, dt)
        # One factor for all axes keeps the direction of a fast move.
        excess = float(np.max(np.abs(landing) / self._velocity_limit))
        fast = landing / max(excess, 1.0)
        changes = self._advance(fast, dt)
        return self._shaped(
            before,
            goal,
            [
                ("step size", wanted, clipped),
                ("position", goal, inside),
                ("stopping distance", velocity, landing),
                ("velocity", landing, fast),
                *changes,
            ],
        )

    def _shaped(self, before: FloatArray, planned: FloatArray, changes: list[Change]) -> Shaped:
        assert self._target is not None
        reasons = [name for name, asked, got in changes if np.max(np.abs(asked - got)) > TOLERANCE]
        done = self._step_from(before) if self._is_delta else self._target
        return Shaped(
            done.astype(np.float32),
            self._target.copy(),
            bool(reasons),
            ", ".join(reasons),
            planned,
            self._velocity.copy(),
        )

    def _landing(self, goal: FloatArray, velocity: FloatArray, dt: float) -> FloatArray:
        """Velocity that catches up with an absolute goal without overshooting it.

        A goal that moves is followed at its own velocity, so only the distance to where it was is
        slowed down; one that jumps is taken as standing still at its new place.
        """
        assert self._target is not None
        last, self._goal = self._goal, goal
        own = np.zeros_like(goal) if last is None else (goal - last) / dt
        own[np.abs(own) > self._velocity_limit] = 0.0
        behind = goal - self._target - own * dt
        landing = velocity.copy()
        for i, (axis, distance) in enumerate(zip(self._axes, behind.tolist(), strict=True)):
            most = approach_velocity(abs(distance), axis, dt)
            if abs(distance) > most * dt * (1.0 + TOLERANCE):
                landing[i] = own[i] + (most if distance > 0.0 else -most)
        return landing

    def _advance(self, wanted: FloatArray, dt: float) -> list[Change]:
        """Move the target on towards a velocity (d,), within acceleration, jerk and position."""
        assert self._target is not None
        before, velocity = self._target, self._velocity
        change = self._acceleration_limit * dt
        smooth = np.clip(wanted, velocity - change, velocity + change)
        if dt >= self._jerk_free_s:
            even = smooth
            braked = np.clip(smooth, -self._room(-1.0, dt), self._room(1.0, dt))
        else:
            even, braked = self._with_jerk(wanted, smooth, dt)
        low = np.minimum(self._position_low, before)
        self._target = np.clip(before + braked * dt, low, np.maximum(self._position_high, before))
        self._velocity = (self._target - before) / dt
        self._acceleration = (self._velocity - velocity) / dt
        return [
            ("acceleration", wanted, smooth),
            ("jerk", smooth, even),
            ("braking", even, braked),
        ]

    def _room(self, sign: float, dt: float) -> FloatArray:
        """Largest velocity (d,) in one direction from which a stop is possible in time."""
        assert self._target is not None
        return np.array(
            [
                braking_velocity(axis.high - x if sign > 0 else x - axis.low, axis.acceleration, dt)
                for axis, x in zip(self._axes, self._target.tolist(), strict=True)
            ]
        )

    def _with_jerk(
        self, wanted: FloatArray, smooth: FloatArray, dt: float
    ) -> tuple[FloatArray, FloatArray]:
        """Velocities (d,) within the jerk limit too, and what of them stops before a limit."""
        assert self._target is not None
        even, braked = smooth.copy(), smooth.copy()
        states = zip(
            self._axes,
            self._target.tolist(),
            self._velocity.tolist(),
            self._acceleration.tolist(),
            wanted.tolist(),
            strict=True,
        )
        for i, (limits, x, v, a, goal) in enumerate(states):
            axis = limits._replace(low=min(limits.low, x), high=max(limits.high, x))
            chosen, reduced = next_acceleration(x, v, a, goal, axis, dt)
            braked[i] = v + chosen * dt
            if not reduced:
                even[i] = braked[i]
        return even, braked
