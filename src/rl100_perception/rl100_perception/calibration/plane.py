"""A plane that is seen, against the plane that should be there. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError

FloatArray = NDArray[np.float64]

TRIALS = 300
LEAST_POINTS = 200
# Of the points near the expected plane, so many must lie in one plane.
LEAST_SHARE = 0.3
MOST_POINTS = 20_000


@dataclass(frozen=True)
class PlaneError:
    """How a seen plane differs from the expected one.

    Attributes:
        offset_m: its distance at the middle of the footprint, m; positive: above.
        tilt_rad: angle between the two normals, rad.
        largest_m: its largest distance over the corners of the footprint, m.
        rms_m: root mean square of its points' distances to it, m: noise of the camera.
        points: how many of the points near the expected plane are in it.
        near: how many points there are near the expected plane.
    """

    offset_m: float
    tilt_rad: float
    largest_m: float
    rms_m: float
    points: int
    near: int


def plane_error(
    points: FloatArray,
    footprint: FloatArray,
    point: FloatArray,
    normal: FloatArray,
    *,
    thickness_m: float,
) -> PlaneError:
    """Fit a plane to most of the points, and compare it with an expected one.

    Args:
        points: (n, 3), m: near the expected plane.
        footprint: (k, 3), m: corners of the region that counts; they are moved along the normal.
        point, normal: (3,) of the expected plane.
        thickness_m: points up to this far from a plane count as of it.

    Raises:
        ContractError: too few points, or no plane among them.
    """
    if len(points) < LEAST_POINTS:
        raise ContractError(
            f"only {len(points)} points are seen near the plane: is it in view and in the crop "
            "box's footprint, and is the camera's pose about right?"
        )
    normal = normal / np.linalg.norm(normal)
    rng = np.random.default_rng(0)
    near = len(points)
    some = points[rng.permutation(near)[:MOST_POINTS]].astype(np.float64)
    best = np.zeros(len(some), dtype=bool)
    for _ in range(TRIALS):
        a, b, c = some[rng.integers(len(some), size=3)]
        across = np.cross(b - a, c - a)
        length = float(np.linalg.norm(across))
        if length < 1e-9:
            continue
        inside = np.abs((some - a) @ (across / length)) < thickness_m
        if inside.sum() > best.sum():
            best = inside
    if best.sum() < LEAST_SHARE * len(some):
        raise ContractError(
            f"no plane is seen: of {near} points near it at most {best.mean():.0%} lie in one; "
            "clear the table"
        )
    kept = some[best]
    middle = kept.mean(axis=0)
    _, sizes, axes = np.linalg.svd(kept - middle, full_matrices=False)
    found = axes[2] if axes[2] @ normal >= 0 else -axes[2]
    onto = footprint - np.outer((footprint - point) @ normal, normal)
    # Along the expected normal, from the expected plane to the one that is seen.
    heights = (middle - onto) @ found / (normal @ found)
    return PlaneError(
        offset_m=float(heights.mean()),
        tilt_rad=float(np.arccos(np.clip(found @ normal, -1.0, 1.0))),
        largest_m=float(np.abs(heights).max()),
        rms_m=float(sizes[2] / np.sqrt(len(kept))),
        points=round(best.mean() * near),
        near=near,
    )
