"""From a depth image to the cloud of the task. The node and the simulation without ROS share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_perception.cloud import camera_rays, rotation_from_quaternion
from rl100_perception.sampling import sample

FloatArray = NDArray[np.float32]


class NoPointsError(RuntimeError):
    """Nothing lies in the crop box: there is no cloud of this image."""


@dataclass(frozen=True)
class CloudResult:
    """One cloud.

    Attributes:
        points: float32 (N, 3), m, base frame.
        sampled_from: how many points lay in the crop box.
        repeated: True when there were fewer than N, so that some are in it more than once.
    """

    points: FloatArray
    sampled_from: int
    repeated: bool


class CloudPipeline:
    """Back-projects, transforms, crops and samples depth images. Not thread-safe."""

    def __init__(self, task: Task) -> None:
        camera = task.camera
        self._count = task.observation.cloud.num_points
        self._near, self._far = (np.float32(value) for value in camera.depth_range)
        self._rotation = rotation_from_quaternion(camera.quaternion_xyzw)
        self._origin = np.asarray(camera.position, dtype=np.float32)
        self._low = np.asarray(camera.crop_low, dtype=np.float32)
        self._high = np.asarray(camera.crop_high, dtype=np.float32)
        self._intrinsics: Intrinsics | None = None
        self._rays = np.empty((3, 0), dtype=np.float32)

    def crop(self, depth_m: FloatArray, intrinsics: Intrinsics) -> FloatArray:
        """All points in the crop box, float32 (n, 3), m, base frame, in the order of the pixels.

        Args:
            depth_m: float32 (H, W), m along the optical axis; 0 or NaN: nothing was seen.
            intrinsics: of this image.

        Raises:
            ContractError: the image has another size than the intrinsics.
        """
        if depth_m.shape != (intrinsics.height, intrinsics.width):
            raise ContractError(
                f"the depth image has {depth_m.shape[1]}x{depth_m.shape[0]} pixels but the camera "
                f"info describes {intrinsics.width}x{intrinsics.height}: use the camera info of "
                "the depth stream"
            )
        if intrinsics != self._intrinsics:
            self._rays = camera_rays(intrinsics, self._rotation)
            self._intrinsics = intrinsics
        flat = np.ascontiguousarray(depth_m, dtype=np.float32).ravel()
        # NaN compares as False, so it is left out like a depth out of range.
        seen = np.flatnonzero((flat >= self._near) & (flat <= self._far))
        depth = flat[seen]
        columns: list[FloatArray] = []
        # Axis by axis, so that later axes are computed only for the points that are still in.
        for axis in (2, 1, 0):
            column = self._rays[axis, seen] * depth + self._origin[axis]
            inside = (column >= self._low[axis]) & (column <= self._high[axis])
            seen, depth = seen[inside], depth[inside]
            columns = [kept[inside] for kept in (*columns, column)]
        return np.stack(columns[::-1], axis=1)

    def process(self, depth_m: FloatArray, intrinsics: Intrinsics) -> CloudResult:
        """The cloud of one depth image; arguments as for ``crop``.

        Raises:
            ContractError: the image has another size than the intrinsics.
            NoPointsError: no point lies in the crop box.
        """
        points = self.crop(depth_m, intrinsics)
        if not len(points):
            raise NoPointsError(
                "no point lies in the crop box: is the camera covered, or is its pose in the task "
                "wrong?"
            )
        sampled = sample(points, self._count)
        return CloudResult(sampled, len(points), len(points) < self._count)
