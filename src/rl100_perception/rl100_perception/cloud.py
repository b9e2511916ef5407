"""Geometry of a depth camera: its pose and the rays of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics

FloatArray = NDArray[np.float32]


def rotation_from_quaternion(xyzw: list[float]) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) of a unit quaternion (x, y, z, w)."""
    x, y, z, w = np.asarray(xyzw, dtype=np.float64) / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def camera_rays(intrinsics: Intrinsics, rotation: NDArray[np.float64]) -> FloatArray:
    """Direction of each pixel, turned by ``rotation`` (3, 3), for a depth of 1 m along the axis.

    Returns:
        float32 (3, H * W): one contiguous row for each of x, y, z.
    """
    v, u = np.mgrid[0 : intrinsics.height, 0 : intrinsics.width].astype(np.float64)
    x = (u.ravel() - intrinsics.cx) / intrinsics.fx
    y = (v.ravel() - intrinsics.cy) / intrinsics.fy
    rays = rotation @ np.stack([x, y, np.ones_like(x)])
    return np.ascontiguousarray(rays, dtype=np.float32)
