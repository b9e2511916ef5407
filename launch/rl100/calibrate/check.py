"""``rl100 calibrate check``: is the table where the cameras see it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100.clouds import live_looks
from rl100.view.scene import box_corners
from rl100_contracts.errors import ContractError
from rl100_contracts.observation_spec import CropBox
from rl100_contracts.task import Task
from rl100_perception.calibration.plane import PlaneError, plane_error

FloatArray = NDArray[np.float64]

CLOUDS = 5
# So far from the expected plane a point may be to count as near it.
BAND_M = 0.05
THICKNESS_M = 0.006


@dataclass(frozen=True)
class CameraCheck:
    """What one camera sees: ``error`` is the difference, ``points`` (n, 3) are m, base frame."""

    camera: str
    error: PlaneError
    points: FloatArray


def expected_plane(task: Task, height_m: float | None) -> tuple[FloatArray, FloatArray]:
    """Point and normal of the table: a height in the base frame, or the task's plane, or z = 0."""
    plane = task.cloud.plane
    if height_m is not None or plane is None:
        return np.array([0.0, 0.0, height_m or 0.0]), np.array([0.0, 0.0, 1.0])
    normal = np.array(plane.normal)
    return np.array(plane.point), normal / np.linalg.norm(normal)


def check_table(task: Task, height_m: float | None) -> list[CameraCheck]:
    """Compare the table that each camera sees with where it should be.

    Args:
        task: with the cameras' poses.
        height_m: of the table in the base frame; None: ``observation.cloud.plane``, or 0.

    Raises:
        ContractError: no cloud comes, or no table is in it.
    """
    point, normal = expected_plane(task, height_m)
    corners = box_corners(task.cloud.crop)
    footprint = corners - np.outer((corners - point) @ normal, normal)
    around = np.concatenate([footprint - BAND_M * normal, footprint + BAND_M * normal])
    box = CropBox(low=around.min(axis=0).tolist(), high=around.max(axis=0).tolist())
    found = []
    for name in task.cameras:
        points = seen_in(task, name, box, CLOUDS)
        near = np.abs((points - point) @ normal) < BAND_M
        try:
            error = plane_error(points[near], footprint, point, normal, thickness_m=THICKNESS_M)
        except ContractError as reason:
            raise ContractError(f"camera '{name}': {reason}") from None
        found.append(CameraCheck(name, error, points[near]))
    return found


def seen_in(task: Task, camera: str, box: CropBox, count: int) -> FloatArray:
    """Everything that one camera sees in a box, of ``count`` images, float64 (n, 3)."""
    cloud = task.cloud.model_copy(
        update={"crop": box, "plane": None, "voxel_size": None, "color": False}
    )
    seen = task.model_copy(
        update={
            "cameras": {camera: task.cameras[camera]},
            "observation": task.observation.model_copy(update={"cloud": cloud}),
        }
    )
    looks = live_looks(seen, count)
    return np.concatenate([look.made.result.cropped.xyz for look in looks]).astype(np.float64)


def sentence(check: CameraCheck, tolerance_m: float) -> str:
    """What was found of one camera, with a figure."""
    e = check.error
    side = "above" if e.offset_m > 0 else "below"
    verdict = f"within {tolerance_m * 1e3:g} mm"
    if e.largest_m > tolerance_m:
        verdict = f"more than {tolerance_m * 1e3:g} mm: calibrate again"
    return (
        f"camera '{check.camera}': the table is seen {abs(e.offset_m) * 1e3:.1f} mm {side} where "
        f"it should be, tilted by {np.degrees(e.tilt_rad):.2f}°; over the crop box it is off by up "
        f"to {e.largest_m * 1e3:.1f} mm, {verdict} (noise {e.rms_m * 1e3:.1f} mm rms, "
        f"{e.points} points)"
    )
