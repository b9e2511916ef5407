"""When a view may be taken: the robot stands still, and somewhere new. No ROS in here."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rl100_perception.calibration.hand_eye import difference, transform

FloatArray = NDArray[np.float64]

SECOND = 1_000_000_000
BEFORE_NS, AFTER_NS = round(0.3 * SECOND), round(0.1 * SECOND)
KEPT_NS = 10 * SECOND
LEAST_POSES = 3
STILL_M, STILL_RAD = 5e-4, np.radians(0.1)
# Stamps that are farther apart come from clocks that don't agree.
CLOCKS_NS = 2 * SECOND
NEW_M, NEW_RAD = 0.03, np.radians(5.0)


class NotStillError(RuntimeError):
    """No pose belongs to a picture; the text says why."""


class PoseHistory:
    """Measured poses of the tool of the last seconds."""

    def __init__(self) -> None:
        self._poses: deque[tuple[int, FloatArray]] = deque()

    def add(self, stamp_ns: int, pose: FloatArray) -> None:
        """Take over a pose (4, 4); one that is not newer than the last starts a new history."""
        if self._poses and stamp_ns <= self._poses[-1][0]:
            if stamp_ns == self._poses[-1][0]:
                return
            self._poses.clear()  # the clock was set back (a bag that begins again)
        self._poses.append((stamp_ns, pose))
        while stamp_ns - self._poses[0][0] > KEPT_NS:
            self._poses.popleft()

    @property
    def empty(self) -> bool:
        """Whether no pose has come yet."""
        return not self._poses

    def covers(self, stamp_ns: int) -> bool:
        """Whether the poses that decide on a picture with this stamp have come."""
        return bool(self._poses) and self._poses[-1][0] >= stamp_ns + AFTER_NS

    def at(self, stamp_ns: int) -> FloatArray:
        """Where the tool stood when a picture was taken, the mean of its poses, (4, 4).

        Raises:
            NotStillError: it moved, or there are too few poses around the picture.
        """
        if not self._poses:
            raise NotStillError("no pose of the robot has come yet")
        gap = abs(self._poses[-1][0] - stamp_ns)
        if gap > CLOCKS_NS:
            raise NotStillError(
                f"the stamps of the picture and of the robot's newest pose are {gap / SECOND:.1f} "
                "s apart: synchronise the clocks of the two machines"
            )
        near = [p for ns, p in self._poses if stamp_ns - BEFORE_NS <= ns <= stamp_ns + AFTER_NS]
        if len(near) < LEAST_POSES:
            raise NotStillError(
                f"only {len(near)} poses of the robot came in the 0.4 s around the picture: "
                "they must come at 10 Hz or more"
            )
        stacked = np.stack(near)
        mean = transform(
            Rotation.from_matrix(stacked[:, :3, :3]).mean().as_matrix(), stacked[:, :3, 3].mean(0)
        )
        moves = [difference(pose, mean) for pose in near]
        apart, turned = max(m for m, _ in moves), max(r for _, r in moves)
        if apart > STILL_M or turned > STILL_RAD:
            raise NotStillError(
                f"the robot moved while the view was taken ({apart * 1e3:.1f} mm, "
                f"{np.degrees(turned):.2f}°): wait until it stands still"
            )
        return mean


def is_new(pose: FloatArray, others: list[FloatArray]) -> bool:
    """Whether a pose of the tool differs enough from those of earlier views to add something."""
    for other in others:
        apart, turned = difference(pose, other)
        if apart < NEW_M and turned < NEW_RAD:
            return False
    return True
