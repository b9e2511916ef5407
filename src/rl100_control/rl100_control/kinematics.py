"""Whether the arm can do what a target asks for: limits, reach, speed and self-collision.

The check of one target (see ``Gateway``): it looks from where the joints are measured to where the
target puts them, and gives one sentence when that must not be sent. No ROS in here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.feedback import GAP_NS
from rl100_control.robot_model import RobotModel

FloatArray = NDArray[np.float64]

# An accepted target that is older says nothing about where the robot comes from.
RECENT_NS = NANOSECONDS // 2
# Of the largest joint step: what the tolerance of the inverse kinematics may add.
SLACK = 1e-2
ANGLE = 1e-6


def _leaves(value: float, now: float, low: float, high: float) -> bool:
    """Whether ``value`` is outside its range and not on the way back from farther outside."""
    return value < min(low, now) or value > max(high, now)


class TargetCheck:
    """Checks targets of one task by the kinematics of its arm. Not thread-safe.

    Args:
        task: with the key ``robot``.
        folder: of the task file.
        now_ns: the time of the node, for the age of the joint states.

    Raises:
        ContractError: see ``RobotModel``.
    """

    def __init__(self, task: Task, folder: Path, now_ns: Callable[[], int]) -> None:
        assert task.robot is not None
        self.model = RobotModel(task, folder)
        self._task, self._robot, self._now_ns = task, task.robot, now_ns
        action = task.action
        self._period_s = task.control.period_ns / NANOSECONDS
        self._timeout_ns = round(task.safety.feedback_timeout_s * NANOSECONDS)
        self._largest_step = self.model.velocity * self._period_s * (1 + SLACK) + ANGLE
        self._commanded: list[int] = []
        if not action.is_cartesian:
            self._commanded = [task.joint_names.index(name) for name in action.names]
        sent = {*action.names, *action.fixed_position}
        self._axes = [i for i, axis in enumerate("xyz") if axis in sent]
        self._oriented = action.turns_tool or action.quaternion_xyzw is not None
        self._joints: tuple[int, FloatArray] | None = None
        self._accepted: tuple[int, FloatArray] | None = None

    def describe(self) -> str:
        """What is checked, for a status."""
        pairs = self.model.pairs
        touching = f"{pairs} pairs of links" if pairs else "no self-collision: none in the URDF"
        return f"{self.model.dim} joints, {touching}"

    @property
    def joints_ns(self) -> int:
        """Stamp of the newest joint states, ns; -1 before the first."""
        return -1 if self._joints is None else self._joints[0]

    def on_joints(self, stamp_ns: int, joints: FloatArray) -> None:
        """Take measured joints over: float64 (n,), rad or m, in the order of ``joint_names``."""
        if self._joints is not None and 0 < self._joints[0] - stamp_ns < GAP_NS:
            return  # overtaken; one that is older still is of a clock that started again
        self._joints = stamp_ns, joints

    def __call__(self, target: FloatArray, feedback: FloatArray) -> str:
        """Why ``target`` must not be sent, in one sentence, or an empty string.

        Args:
            target: float64 (d,), in the coordinates of the action.
            feedback: measured, float64 (d,).
        """
        now_ns, topic = self._now_ns(), self._task.streams[self._robot.joint_states].topic
        if self._joints is None:
            return f"no joint states on {topic} yet: the target cannot be checked"
        stamp_ns, measured = self._joints
        if now_ns - stamp_ns > self._timeout_ns:
            return f"no joint states on {topic} for more than {self._timeout_ns * 1e-9:g} s"
        if stamp_ns - now_ns > self._timeout_ns:
            return f"the joint states on {topic} are stamped in the future: are the clocks in step?"
        if self._task.action.is_cartesian and (problem := self._misplaced(measured, feedback)):
            return problem
        joints = self._joints_of(target, measured)
        if joints is None:
            place = ", ".join(f"{value:.3f}" for value in self._pose(target)[0])
            return f"{self._task.tool_frame} cannot get to ({place}) m from where the joints are"
        problem = (
            self._beyond_limits(joints, measured)
            or self._too_fast(joints, measured, now_ns)
            or self._outside(joints, measured)
            or self._touching(joints, measured)
        )
        if not problem:
            self._accepted = now_ns, target
        return problem

    def _pose(self, target: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        position, quaternion = self._task.action.coordinates.pose(target)
        return position, quaternion if self._oriented else None

    def _joints_of(self, target: FloatArray, measured: FloatArray) -> FloatArray | None:
        """All joints (n,) at a target, on the branch that the arm is on; None: out of reach."""
        if self._task.action.is_cartesian:
            return self.model.inverse(*self._pose(target), measured, self._axes)
        joints = measured.copy()
        joints[self._commanded] = target
        return joints

    def _misplaced(self, measured: FloatArray, feedback: FloatArray) -> str:
        """A URDF of another robot, or a wrong frame, shows in the tool's measured pose."""
        limit, action = self._task.limits.max_tracking_error, self._task.action
        position, quaternion = self.model.forward(measured)
        seen = action.coordinates.pose(feedback)
        names = [i for i, axis in enumerate("xyz") if axis in action.names]
        apart = float(np.linalg.norm((position - seen[0])[names]))
        turned = 0.0
        if action.turns_tool:
            turned = 2.0 * float(np.arccos(min(1.0, abs(float(quaternion @ seen[1])))))
        if apart <= limit and turned <= limit:
            return ""
        far = f"{apart:.3f} m" if apart > limit else f"{turned:.2f} rad"
        topic = self._task.streams[action.feedback].topic
        return (
            f"the URDF puts {self._task.tool_frame} {far} from where {topic} measures it: mend "
            "robot.urdf, tool_frame or base_frame"
        )

    def _beyond_limits(self, joints: FloatArray, measured: FloatArray) -> str:
        model = self.model
        for i, name in enumerate(model.names):
            low, high, value = model.low[i], model.high[i], joints[i]
            if _leaves(value, measured[i], low - ANGLE, high + ANGLE):
                side, limit = ("below", low) if value < low else ("above", high)
                return (
                    f"joint '{name}' would be at {value:.3f} {model.units[i]}, {side} its limit "
                    f"of {limit:.3f}"
                )
        return ""

    def _too_fast(self, joints: FloatArray, measured: FloatArray, now_ns: int) -> str:
        """From where the joints are, or (they lag behind) from where the last target put them."""
        step = np.abs(joints - measured)
        if (step <= self._largest_step).all():
            return ""
        if self._accepted is not None and now_ns - self._accepted[0] <= RECENT_NS:
            before = self._joints_of(self._accepted[1], measured)
            if before is not None:
                step = np.abs(joints - before)
        worst = int(np.argmax(step / self._largest_step))
        if step[worst] <= self._largest_step[worst]:
            return ""
        return (
            f"joint '{self.model.names[worst]}' would have to move at "
            f"{step[worst] / self._period_s:.2f} {self.model.units[worst]}/s, its limit is "
            f"{self.model.velocity[worst]:.2f}"
        )

    def _outside(self, joints: FloatArray, measured: FloatArray) -> str:
        low, high = self._robot.workspace_low, self._robot.workspace_high
        if low is None or high is None:
            return ""
        there, here = (self.model.forward(j)[0] for j in (joints, measured))
        for axis, value, now, least, most in zip("xyz", there, here, low, high, strict=True):
            if _leaves(value, now, least, most):
                return (
                    f"{self._task.tool_frame} would be at {axis} {value:.3f} m, outside the "
                    f"workspace from {least:g} to {most:g} (robot.workspace_low, workspace_high)"
                )
        return ""

    def _touching(self, joints: FloatArray, measured: FloatArray) -> str:
        links = self.model.collision(joints, measured)
        if not links:
            return ""
        return f"{links} would be closer than {self._robot.collision_margin:g} m"
