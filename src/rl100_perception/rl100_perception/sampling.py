"""Farthest-point sampling to an exact number of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

try:
    from fpsample import bucket_fps_kdline_sampling, fps_sampling
except ImportError:  # a sourced ROS without the wheel: slower
    fps_sampling = None

FloatArray = NDArray[np.float32]
# From here on fpsample's bucket method is several times faster. It starts at a point of its own
# (a function of the points), so below, where it gains nothing, the plain method is used.
BUCKETS_FROM = 512
TREE_HEIGHT = 5


def farthest_points(points: FloatArray, count: int) -> NDArray[np.intp]:
    """Indices of ``count`` points, each the farthest from those chosen before; starts at point 0.

    Plain NumPy, for machines without fpsample and as its oracle. ``points`` is (n, 3), n >= count.
    """
    columns = np.ascontiguousarray(points.T)
    chosen = np.zeros(count, dtype=np.intp)
    distance = np.full(points.shape[0], np.inf, dtype=np.float32)
    for index in range(1, count):
        last = columns[:, chosen[index - 1], None]
        np.minimum(distance, ((columns - last) ** 2).sum(axis=0), out=distance)
        chosen[index] = int(np.argmax(distance))
    return chosen


def sample_places(points: FloatArray, count: int) -> NDArray[np.intp]:
    """Indices (count,) of exactly ``count`` of the points (n >= 1, 3).

    The farthest ones of each other are taken, in the order of choosing, so that the first ones are
    a sample of all; where there are fewer than needed, that order is repeated.
    """
    available = points.shape[0]
    if available < count:
        return np.resize(sample_places(points, available), count)
    if available == 1:
        return np.zeros(1, dtype=np.intp)
    if fps_sampling is None:
        return farthest_points(points, count)
    if available < BUCKETS_FROM:
        chosen = fps_sampling(points, count, start_idx=0)
    else:
        chosen = bucket_fps_kdline_sampling(points, count, h=TREE_HEIGHT, start_idx=0)
    return np.asarray(chosen, dtype=np.intp)  # fpsample gives unsigned indices


def sample(points: FloatArray, count: int) -> FloatArray:
    """Exactly ``count`` points of ``points`` (n >= 1, 3), float32 (count, 3); see above."""
    return np.asarray(points[sample_places(points, count)], dtype=np.float32)
