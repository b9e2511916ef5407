"""The arm's kinematics and the controller that runs inside the robot ("firmware").

The arm is of SCARA type: two revolute joints about z, the elbow always bent to the same side, so
that a tool position has exactly one joint position.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

JOINT_NAMES = ("shoulder_joint", "elbow_joint")
# Of the physics, and so of the firmware, s.
TIMESTEP_S = 0.005


@dataclass(frozen=True)
class ArmKinematics:
    """Geometry of the arm (m, rad) in the ``base_link`` frame; the elbow angle is positive."""

    base_x: float
    link_1: float
    link_2: float
    shoulder_limits: tuple[float, float] = (-2.6, 2.6)
    elbow_limits: tuple[float, float] = (0.25, 2.75)

    def forward(self, joints: ArrayLike) -> NDArray[np.float64]:
        """Tool position ``(2,)`` (m) of the joint positions ``(2,)`` (rad)."""
        q = np.asarray(joints, dtype=np.float64)
        s, e = float(q[0]), float(q[0] + q[1])
        return np.array(
            [
                self.base_x + self.link_1 * math.cos(s) + self.link_2 * math.cos(e),
                self.link_1 * math.sin(s) + self.link_2 * math.sin(e),
            ]
        )

    def inverse(self, x: float, y: float) -> tuple[float, float] | None:
        """Joint positions (rad) that reach ``(x, y)`` (m), or None where the arm can't go."""
        dx = x - self.base_x
        squared = dx * dx + y * y
        a, b = self.link_1, self.link_2
        cosine = (squared - a * a - b * b) / (2.0 * a * b)
        if not -1.0 <= cosine <= 1.0:  # NaN fails this test too
            return None
        elbow = math.acos(cosine)
        shoulder = math.atan2(y, dx) - math.atan2(b * math.sin(elbow), a + b * math.cos(elbow))
        shoulder = math.remainder(shoulder, 2.0 * math.pi)
        low, high = self.elbow_limits
        if not low <= elbow <= high:
            return None
        low, high = self.shoulder_limits
        if not low <= shoulder <= high:
            return None
        return shoulder, elbow


class Firmware:
    """The robot's own Cartesian controller: tool target in, joint position targets out.

    It is ticked once per physics step. A command takes effect after ``delay_steps`` ticks; the
    set-point then travels to it in a straight line, no faster than ``max_speed``. Commands that
    aren't finite, that the arm can't reach or whose straight line it can't follow are ignored and
    counted in ``rejected``. With ``timeout_steps``, the set-point stops where it is when no command
    came for so long (``held`` is then true).
    """

    def __init__(
        self,
        kinematics: ArmKinematics,
        *,
        tick_s: float,
        max_speed: float = 1.0,
        timeout_steps: int | None = None,
    ) -> None:
        self._kinematics = kinematics
        self._reach = max_speed * tick_s
        self._timeout_steps = timeout_steps
        self.rejected = 0
        self.reset((0.0, 0.0), delay_steps=0)

    def reset(self, tool_xy: ArrayLike, *, delay_steps: int) -> None:
        """Stand still at ``tool_xy`` (m), with nothing queued. Counters stay."""
        xy = np.asarray(tool_xy, dtype=np.float64)
        joints = self._kinematics.inverse(float(xy[0]), float(xy[1]))
        if joints is None:
            raise ValueError(f"the arm can't stand at {xy.tolist()}")
        self._delay_steps = delay_steps
        self._queue: deque[tuple[int, float, float]] = deque()
        self._tick = 0
        self._last_command = 0
        self._target = self._setpoint = (float(xy[0]), float(xy[1]))
        self._joints = joints
        self.held = False

    @property
    def target(self) -> tuple[float, float]:
        """The last accepted command (m), which may not have taken effect yet."""
        return self._queue[-1][1:] if self._queue else self._target

    def command(self, x: float, y: float) -> bool:
        """Queue a tool target (m). Returns False, and counts it, if the robot won't follow it."""
        if self._kinematics.inverse(x, y) is None:
            self.rejected += 1
            return False
        self._last_command = self._tick
        self.held = False
        self._queue.append((self._tick + self._delay_steps, float(x), float(y)))
        return True

    def tick(self) -> tuple[float, float]:
        """Advance by one physics step and return the joint position targets (rad)."""
        while self._queue and self._queue[0][0] <= self._tick:
            self._target = self._queue.popleft()[1:]
        self._tick += 1
        if (
            self._timeout_steps is not None
            and not self.held
            and self._tick - self._last_command > self._timeout_steps
        ):
            self.held = True
            self._queue.clear()
            self._target = self._setpoint
        x, y = self._setpoint
        dx, dy = self._target[0] - x, self._target[1] - y
        distance = math.hypot(dx, dy)
        if distance == 0.0:
            return self._joints
        if distance <= self._reach:
            setpoint = self._target
        else:
            part = self._reach / distance
            setpoint = (x + dx * part, y + dy * part)
        joints = self._kinematics.inverse(*setpoint)
        if joints is None:
            # Both ends are reachable, the line between them isn't: stop rather than jump.
            self.rejected += 1
            self._target = self._setpoint
            return self._joints
        self._setpoint, self._joints = setpoint, joints
        return joints
