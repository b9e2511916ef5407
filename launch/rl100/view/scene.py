"""What there is to draw of a cloud: boxes, camera frusta and axes as lines in the base frame."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from rl100.clouds import Look
from rl100_contracts.decode import Intrinsics
from rl100_contracts.observation_spec import CropBox
from rl100_contracts.task import NANOSECONDS, Task
from rl100_perception.cloud import Pose

FloatArray = NDArray[np.float64]

# What the frustum of a camera without intrinsics (a ready cloud) looks like.
TYPICAL = Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0)
FRUSTUM_M = 0.15
# Stamps before 2001 are not of a clock that knows the date.
FIRST_DATE_NS = 10**18


@dataclass(frozen=True)
class Scene:
    """Everything of one cloud that is drawn, base frame, m.

    Attributes:
        title: task and time.
        cropped: float32 (n, 3), all points in the crop box.
        sampled: float32 (N, 3), what the policy sees.
        colours: uint8 (N, 3) of the sampled points, or None.
        box: float64 (12, 2, 3), edges of the crop box.
        cameras: by name, float64 (8, 2, 3), edges of its frustum, its near end at the camera.
    """

    title: str
    cropped: NDArray[np.float32]
    sampled: NDArray[np.float32]
    colours: NDArray[np.uint8] | None
    box: FloatArray
    cameras: Mapping[str, FloatArray]


def box_corners(crop: CropBox) -> FloatArray:
    """The eight corners of a crop box, float64 (8, 3), m, base frame, x slowest."""
    pose = Pose.of(crop.position, crop.quaternion_xyzw)
    sides = zip(crop.low, crop.high, strict=True)
    corners = np.array(list(itertools.product(*sides)))
    return np.asarray(corners @ pose.rotation.T + pose.position)


def box_edges(crop: CropBox) -> FloatArray:
    """The twelve edges of a crop box, float64 (12, 2, 3), m, base frame."""
    corners = box_corners(crop)
    pairs = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
    return corners[np.array(pairs)]


def frustum(pose: Pose, intrinsics: Intrinsics, depth_m: float = FRUSTUM_M) -> FloatArray:
    """Edges of what a camera sees up to a depth, float64 (8, 2, 3), m."""
    c = intrinsics
    pixels = [(0, 0), (c.width, 0), (c.width, c.height), (0, c.height)]
    far = np.array([((u - c.cx) / c.fx, (v - c.cy) / c.fy, 1.0) for u, v in pixels]) * depth_m
    corners = far @ pose.rotation.T + pose.position
    rays = [(pose.position, corner) for corner in corners]
    rim = [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    return np.array([*rays, *rim])


def _when(stamp_ns: int) -> str:
    """A stamp for people: the date, or seconds where the clock began at 0, as in simulation."""
    if stamp_ns < FIRST_DATE_NS:
        return f"t = {stamp_ns / NANOSECONDS:.3f} s"
    seconds, rest = divmod(stamp_ns, NANOSECONDS)
    date = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{date:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d} UTC"


def scene_of(task: Task, look: Look) -> Scene:
    """What is drawn of one cloud of a task."""
    result = look.made.result
    cameras = {
        name: frustum(pose, look.lenses.get(name, TYPICAL)) for name, pose in look.poses.items()
    }
    title = (
        f"{task.name}, {_when(look.made.stamp_ns)}: {len(result.cropped.xyz)} points in "
        f"the crop box, {len(result.points)} for the policy"
    )
    box = box_edges(task.cloud.crop)
    return Scene(title, result.cropped.xyz, result.points, result.colours, box, cameras)
