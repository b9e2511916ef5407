"""From actions to commands within the task's limits: used by the gateway and by direct simulation.

The limits hold for every target that leaves here, whatever comes in: position always, velocity
always, acceleration always (braking in time before a position limit included) while the control
period is constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.task import Task

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-9


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
    """

    action: NDArray[np.float32]
    target: FloatArray
    limited: bool
    reason: str


def braking_velocity(distance: FloatArray, acceleration: FloatArray, dt: float) -> FloatArray:
    """Largest velocity with which a stop within ``distance`` is possible in steps of ``dt``.

    With u = v / (a dt) and m = floor(u), a stop from v takes
    a dt^2 ((m + 1) u - m (m + 1) / 2), this step included; solved for u.
    """
    scaled = np.maximum(distance, 0.0) / (acceleration * dt * dt)
    m = np.floor((np.sqrt(1.0 + 8.0 * scaled) - 1.0) / 2.0)
    return acceleration * dt * (scaled + m * (m + 1.0) / 2.0) / (m + 1.0)


class CommandShaper:
    """Turns actions into targets within the limits of the task. Not thread-safe."""

    def __init__(self, task: Task) -> None:
        action, limits = task.action, task.limits
        self._is_delta = action.is_delta
        self._low = np.asarray(action.low, dtype=np.float64)
        self._high = np.asarray(action.high, dtype=np.float64)
        self._position_low = np.asarray(limits.position_low, dtype=np.float64)
        self._position_high = np.asarray(limits.position_high, dtype=np.float64)
        self._velocity_limit = np.asarray(limits.velocity, dtype=np.float64)
        self._acceleration = np.asarray(limits.acceleration, dtype=np.float64)
        self._target: FloatArray | None = None
        self._velocity = np.zeros(action.dim)

    @property
    def target(self) -> FloatArray | None:
        """Last target, float64 (d,), or None before the first sync."""
        return None if self._target is None else self._target.copy()

    def sync(self, position: FloatArray) -> None:
        """Start from a measured position (d,), at rest. It is clipped into the position limits."""
        position = np.asarray(position, dtype=np.float64)
        if position.shape != self._low.shape or not np.isfinite(position).all():
            raise ValueError(f"a position needs {self._low.size} finite values, got {position}")
        self._target = np.clip(position, self._position_low, self._position_high)
        self._velocity = np.zeros_like(self._target)

    def hold(self) -> FloatArray:
        """Stay at the last target, at rest; returns it."""
        if self._target is None:
            raise NotSynced("hold before the first sync")
        self._velocity = np.zeros_like(self._target)
        return self._target.copy()

    def shape(self, action: NDArray[np.floating], dt: float) -> Shaped:
        """Limit one action.

        Args:
            action: (d,), task units; must be finite.
            dt: time since the last target, s.

        Raises:
            NotSynced: before the first sync.
            ValueError: wrong shape or not finite.
        """
        if self._target is None:
            raise NotSynced("shape before the first sync")
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            raise ValueError(f"an action needs {self._low.size} finite values, got {wanted}")
        clipped = np.clip(wanted, self._low, self._high)
        goal = self._target + clipped if self._is_delta else clipped
        inside = np.clip(goal, self._position_low, self._position_high)

        velocity = (inside - self._target) / dt
        # One factor for all axes keeps the direction of a fast move.
        excess = float(np.max(np.abs(velocity) / self._velocity_limit))
        fast = velocity / max(excess, 1.0)
        change = self._acceleration * dt
        smooth = np.clip(fast, self._velocity - change, self._velocity + change)
        up = braking_velocity(self._position_high - self._target, self._acceleration, dt)
        down = braking_velocity(self._target - self._position_low, self._acceleration, dt)
        braked = np.clip(smooth, -down, up)

        target = np.clip(self._target + braked * dt, self._position_low, self._position_high)
        reasons = [
            name
            for name, before, after in (
                ("step size", wanted, clipped),
                ("position", goal, inside),
                ("velocity", velocity, fast),
                ("acceleration", fast, smooth),
                ("braking", smooth, braked),
            )
            if np.max(np.abs(before - after)) > TOLERANCE
        ]
        done = target - self._target if self._is_delta else target
        self._velocity = (target - self._target) / dt
        self._target = target
        return Shaped(done.astype(np.float32), target.copy(), bool(reasons), ", ".join(reasons))
