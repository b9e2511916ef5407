"""Filters of depth images and clouds. All are functions of their input and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.observation_spec import Plane

FloatArray = NDArray[np.float32]
ColourArray = NDArray[np.uint8]


def remove_edges(depth_m: FloatArray, threshold: float) -> FloatArray:
    """A depth image (H, W), m, without pixels at a jump of depth.

    A pixel becomes 0 when its depth differs by more than ``threshold`` (m) from that of the pixel
    above, below, left or right. Neighbours that saw nothing don't count: a hole is no surface.
    """
    limit = np.float32(threshold)
    seen = depth_m > 0  # NaN compares as False
    edge = np.zeros(depth_m.shape, dtype=bool)
    for first, second in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        jump = np.abs(depth_m[first] - depth_m[second]) > limit
        jump &= seen[first]
        jump &= seen[second]
        edge[first] |= jump
        edge[second] |= jump
    return np.where(edge, np.float32(0.0), depth_m)


def above_plane(points: FloatArray, plane: Plane) -> NDArray[np.bool_]:
    """Which points (n, 3) lie more than the clearance above a plane, (n,)."""
    normal = np.asarray(plane.normal, dtype=np.float64)
    normal = normal / np.linalg.norm(normal)
    offset = np.float32(normal @ np.asarray(plane.point) + plane.clearance)
    x, y, z = normal.astype(np.float32)
    return points[:, 0] * x + points[:, 1] * y + points[:, 2] * z > offset


def voxel_means(
    points: FloatArray, size: float, colours: ColourArray | None = None
) -> tuple[FloatArray, ColourArray | None]:
    """Means of the points (n, 3), and of their colours (n, 3), in each cube of a grid.

    The grid has its origin in the base frame's; ``size`` is the side of a cube, m. The means come
    in the order of the cubes (x, then y, then z).
    """
    cells = np.floor(points.astype(np.float64) / size).astype(np.int64)
    cells -= cells.min(axis=0)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    place = place.ravel()

    def means(values: NDArray) -> NDArray[np.float64]:
        sums = [np.bincount(place, weights=values[:, axis]) for axis in range(3)]
        return np.stack(sums, axis=1) / counts[:, None]

    if colours is not None:
        colours = np.floor(means(colours) + 0.5).astype(np.uint8)
    return means(points).astype(np.float32), colours


def thin(count: int, limit: int) -> NDArray[np.intp]:
    """At most ``limit`` of the indices 0 to ``count`` - 1, evenly spread, ascending."""
    if count <= limit:
        return np.arange(count, dtype=np.intp)
    return (np.arange(limit, dtype=np.int64) * count // limit).astype(np.intp)
