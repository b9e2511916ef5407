"""Tool poses as vectors: the coordinates in which Cartesian actions, targets and limits are given.

A pose has the coordinates x, y, z (m, base frame) and rx, ry, rz (rad): the rotation vector, in the
base frame, that turns the task's nominal orientation (``action.quaternion_xyzw``) into the pose's,
R = Exp(r) R_nominal. The task's limits keep |r| below pi, where this is one to one and smooth: no
jump, no second name for the same orientation, and one number per axis for each limit. The tool
never turns faster than its coordinates do: angular velocity is J(r) dr/dt, and no singular value of
the left Jacobian J of SO(3) is above 1.

A step (the action of a delta space) is given in the base frame: p + dp and Exp(dr) R.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl100_contracts.errors import ContractError

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]

POSITIONS = ("x", "y", "z")
ROTATIONS = ("rx", "ry", "rz")
# The tool's x axis and y axis in the base frame, the 6-D representation of Zhou et al. (2019).
AXES_6D = ("xx", "xy", "xz", "yx", "yy", "yz")
# What a pose offers to the policy: fields of a PoseStamped and their names.
POSE_NAMES = {"position": POSITIONS, "rotation_6d": AXES_6D, "rotation_vector": ROTATIONS}
IDENTITY = (0.0, 0.0, 0.0, 1.0)


def rotation_of(quaternion_xyzw: ArrayLike) -> Rotation:
    """The rotation of a quaternion (4,) of about unit length.

    Raises:
        ContractError: not finite, or far from unit length (a pose that nobody filled in).
    """
    # Not at the head: most tasks move positions only, and the import takes a while.
    from scipy.spatial.transform import Rotation

    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    if not abs(float(quaternion @ quaternion) - 1.0) < 1e-2:  # NaN fails this test too
        raise ContractError(
            f"the orientation {quaternion.tolist()} (x, y, z, w) is not a unit quaternion"
        )
    return Rotation.from_quat(quaternion)


def message_rotation(pose: Any) -> Rotation:
    """The rotation of a geometry_msgs/Pose; raises ContractError, see ``rotation_of``."""
    q = pose.orientation
    return rotation_of((q.x, q.y, q.z, q.w))


def axes_6d(rotation: Rotation) -> FloatArray:
    """First two columns of the rotation matrix, float64 (6,), in the order of ``AXES_6D``."""
    return np.asarray(rotation.as_matrix()[:, :2].T.ravel(), dtype=np.float64)


class ToolCoordinates:
    """Poses to coordinates and back, for the coordinates that a task commands.

    Args:
        names: commanded coordinates, of x, y, z and of rx, ry, rz, in the order of the vectors.
        fixed_position: m, of the positions that are not commanded (else 0).
        quaternion_xyzw: nominal orientation of the tool in the base frame. Rotations that are not
            commanded stay there.
    """

    def __init__(
        self,
        names: Sequence[str],
        fixed_position: dict[str, float] | None = None,
        quaternion_xyzw: Sequence[float] | None = None,
    ) -> None:
        self.dim = len(names)
        self.turns = any(name in ROTATIONS for name in names)
        self._position = [names.index(n) if n in names else None for n in POSITIONS]
        self._rotation = [names.index(n) if n in names else None for n in ROTATIONS]
        fixed = fixed_position or {}
        self._fixed = np.array([fixed.get(name, 0.0) for name in POSITIONS])
        self._quaternion = np.asarray(quaternion_xyzw or IDENTITY, dtype=np.float64)
        self._nominal = rotation_of(self._quaternion) if self.turns else None

    def _scatter(self, values: FloatArray, places: list[int | None]) -> FloatArray:
        return np.array([0.0 if place is None else values[place] for place in places])

    def _gather(self, position: FloatArray, vector: FloatArray) -> FloatArray:
        values = np.empty(self.dim)
        for places, source in ((self._position, position), (self._rotation, vector)):
            for place, value in zip(places, source, strict=True):
                if place is not None:
                    values[place] = value
        return values

    def _turn(self, values: FloatArray) -> Rotation:
        """The rotation from the nominal orientation that ``values`` (d,) hold."""
        from scipy.spatial.transform import Rotation

        return Rotation.from_rotvec(self._scatter(values, self._rotation))

    def _orientation(self, values: FloatArray) -> Rotation:
        return self._turn(values) * self._nominal

    def of_pose(self, position: ArrayLike, quaternion_xyzw: ArrayLike) -> FloatArray:
        """Coordinates (d,) of a position (3,), m, and an orientation (4,).

        Raises:
            ContractError: the orientation is not a unit quaternion.
        """
        vector = np.zeros(3)
        if self._nominal is not None:
            vector = (rotation_of(quaternion_xyzw) * self._nominal.inv()).as_rotvec()
        return self._gather(np.asarray(position, dtype=np.float64), vector)

    def of_message(self, pose: Any) -> FloatArray:
        """Coordinates (d,) of a geometry_msgs/Pose; raises ContractError, see ``of_pose``."""
        p, q = pose.position, pose.orientation
        return self.of_pose((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))

    def pose(self, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Position (3,), m, and unit quaternion (x, y, z, w) of coordinates (d,), base frame."""
        array = np.asarray(values, dtype=np.float64)
        position = self._fixed.copy()
        for axis, place in enumerate(self._position):
            if place is not None:
                position[axis] = array[place]
        if self._nominal is None:
            return position, self._quaternion.copy()
        return position, self._orientation(array).as_quat()

    def add(self, values: FloatArray, step: FloatArray) -> FloatArray:
        """Coordinates (d,) after a step (d,): m and rad (rotation vector), base frame."""
        if self._nominal is None:
            return values + step
        position = self._scatter(values, self._position) + self._scatter(step, self._position)
        return self._gather(position, (self._turn(step) * self._turn(values)).as_rotvec())

    def step(self, before: FloatArray, after: FloatArray) -> FloatArray:
        """The step (d,) with which ``add`` leads from ``before`` to ``after``, both (d,)."""
        if self._nominal is None:
            return after - before
        moved = self._scatter(after, self._position) - self._scatter(before, self._position)
        return self._gather(moved, (self._turn(after) * self._turn(before).inv()).as_rotvec())

    def twist(
        self, before: FloatArray, after: FloatArray, dt: float
    ) -> tuple[FloatArray, FloatArray]:
        """Constant velocity (3,), m/s, and angular velocity (3,), rad/s, base frame, that lead from
        ``before`` to ``after`` in ``dt`` s."""
        step = self.step(before, after) / dt
        return self._scatter(step, self._position), self._scatter(step, self._rotation)
