"""Geometry of point clouds: rays of a camera, farthest-point sampling, exact point counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics

try:
    import fpsample
except ImportError:  # a full ROS installation has no package of it; NumPy gives the same, slower
    fpsample = None

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


def _tree_height(count: int) -> int:
    """Height of fpsample's tree: its authors' advice for small, medium and large clouds."""
    if count < 4096:
        return 3
    return 5 if count < 65536 else 7


def farthest_points_numpy(points: FloatArray, count: int) -> NDArray[np.intp]:
    """Farthest-point sampling that starts at point 0: indices (count,) into points (n, 3)."""
    columns = np.ascontiguousarray(points.T)
    distance = np.full(points.shape[0], np.inf, dtype=np.float32)
    chosen = np.zeros(count, dtype=np.intp)
    for i in range(1, count):
        delta = columns - columns[:, chosen[i - 1], None]
        np.minimum(distance, np.einsum("ij,ij->j", delta, delta), out=distance)
        chosen[i] = int(np.argmax(distance))
    return chosen


def farthest_points(points: FloatArray, count: int) -> NDArray[np.intp]:
    """Farthest-point sampling with a fixed start, so that it is deterministic.

    Args:
        points: float32 (n, 3) with n > count.
        count: how many are chosen.

    Returns:
        Indices (count,) into ``points``.
    """
    if fpsample is None:
        return farthest_points_numpy(points, count)
    height = _tree_height(len(points))
    indices = fpsample.bucket_fps_kdline_sampling(points, count, h=height, start_idx=0)
    return np.asarray(indices, dtype=np.intp)


def sample_exactly(points: FloatArray, count: int) -> FloatArray:
    """Exactly ``count`` points, float32 (count, 3), of points (n, 3) with n >= 1.

    More points are sampled by farthest distance; fewer are repeated in their order.
    """
    available = len(points)
    if available > count:
        return points[farthest_points(points, count)]
    if available == count:
        return points
    return points[np.arange(count) % available]
