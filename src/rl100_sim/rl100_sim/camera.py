"""Cameras by ray-casting: no OpenGL, so they run on any machine. Here the depth camera.

Depth images are ``uint16`` millimetres along the optical axis (``16UC1``), 0 for nothing seen.
The optical frame has x right, y down, z forward, as ROS has it (REP 103).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
DepthImage = NDArray[np.uint16]

STATIC_GROUP, MOVING_GROUP, PAINTED_GROUP = 0, 1, 4  # see build_mjcf
# mj_multiRay gained an optional output for surface normals in later versions.
_TAKES_NORMAL = "normal" in (mujoco.mj_multiRay.__doc__ or "")


@dataclass(frozen=True)
class CameraModel:
    """Pinhole camera: size in pixels, intrinsics in pixels, range in metres, pose in base_link.

    ``rotation`` (3, 3) turns vectors of the optical frame into ``base_link``; ``position`` (3,) m.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: FloatArray
    rotation: FloatArray
    min_range: float = 0.1
    max_range: float = 2.0

    def rays(self) -> FloatArray:
        """Direction of each pixel in the optical frame, ``(height * width, 3)``, with z = 1."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float64)
        x = (u - self.cx) / self.fx
        y = (v - self.cy) / self.fy
        return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)

    def deproject(self, depth: DepthImage) -> NDArray[np.float32]:
        """Points ``(n, 3)`` (m, base_link) of the pixels of a depth image that saw something."""
        flat = depth.reshape(-1)
        seen = np.flatnonzero(flat)
        points = self.rays()[seen] * (flat[seen, None] * 1e-3)
        return (points @ self.rotation.T + self.position).astype(np.float32)


@dataclass(frozen=True)
class DepthNoise:
    """Noise of a depth camera: standard deviation ``base + growth * depth**2`` (m) along the axis,
    and the share of pixels that return nothing."""

    base: float = 0.0004
    growth: float = 0.0008
    dropout: float = 0.01


def rotation_matrix(vector: FloatArray) -> FloatArray:
    """Rotation matrix (3, 3) of a rotation vector (rad)."""
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


def quaternion_matrix(xyzw: Sequence[float]) -> FloatArray:
    """Rotation matrix (3, 3) of a unit quaternion in ROS's order (x, y, z, w)."""
    x, y, z, w = np.asarray(xyzw, dtype=np.float64) / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _cast(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    origin: FloatArray,
    directions: FloatArray,
    group: int,
    cutoff: float,
) -> FloatArray:
    """Distances ``(n,)`` (m) to the nearest geom of ``group``; -1 where there's none."""
    n = len(directions)
    groups = np.zeros((6, 1), dtype=np.uint8)
    groups[group] = 1
    geom = np.empty((n, 1), dtype=np.int32)
    distance = np.empty((n, 1), dtype=np.float64)
    before = (model, data, origin.reshape(3, 1), directions.reshape(-1, 1), groups, 1, -1)
    if _TAKES_NORMAL:
        mujoco.mj_multiRay(*before, geom, distance, None, n, cutoff)
    else:
        mujoco.mj_multiRay(*before, geom, distance, n, cutoff)
    return distance[:, 0]


class RayCamera:
    """Casts the rays of a :class:`CameraModel` into a MuJoCo scene.

    Of what moves, only the rays that can meet its bounding spheres need to be cast: the image is
    the same, several times sooner.
    """

    def __init__(self, model: mujoco.MjModel, camera: CameraModel) -> None:
        self._model = model
        self._camera = camera
        optical = camera.rays()
        self._norm = np.linalg.norm(optical, axis=1)
        self._unit_optical = optical / self._norm[:, None]
        moving = (model.geom_group == MOVING_GROUP) & (model.geom_bodyid > 0)
        self._moving = np.flatnonzero(moving)
        self._radii = model.geom_rbound[self._moving]
        self.place(np.zeros(3), np.zeros(3))

    def place(self, shift: FloatArray, rotation: FloatArray) -> None:
        """Put the true camera off its stated pose: ``shift`` (m), ``rotation`` (vector, rad)."""
        camera = self._camera
        self._origin = camera.position + shift
        self._rotation = rotation_matrix(rotation) @ camera.rotation
        self._unit = np.ascontiguousarray(self._unit_optical @ self._rotation.T)
        self._forget()

    def _forget(self) -> None:
        """What was seen of the things that never move: the camera is somewhere else now."""

    def _candidates(self, data: mujoco.MjData) -> NDArray[np.intp]:
        """Indices of the pixels inside the image boxes of the moving geoms' bounding spheres."""
        camera = self._camera
        centres = (data.geom_xpos[self._moving] - self._origin) @ self._rotation
        mask = np.zeros((camera.height, camera.width), dtype=bool)
        for (x, y, z), radius in zip(centres.tolist(), self._radii.tolist(), strict=True):
            if z + radius <= 0.0:
                continue
            if z <= 1.5 * radius:  # too near to be boxed in safely
                mask[:] = True
                break
            near = z - radius
            columns = _span(x, radius, near, z + radius, camera.fx, camera.cx, camera.width)
            rows = _span(y, radius, near, z + radius, camera.fy, camera.cy, camera.height)
            mask[rows, columns] = True
        return np.flatnonzero(mask)


class DepthCamera(RayCamera):
    """The depth camera. What never moves is cast once per :meth:`place`."""

    _background: FloatArray | None = None

    def _forget(self) -> None:
        self._background = None

    def _static(self, data: mujoco.MjData) -> FloatArray:
        if self._background is None:
            cutoff = 2.0 * self._camera.max_range
            distance = _cast(self._model, data, self._origin, self._unit, STATIC_GROUP, cutoff)
            self._background = np.where(distance < 0.0, np.inf, distance / self._norm)
        return self._background

    def render(self, data: mujoco.MjData) -> NDArray[np.float32]:
        """Noise-free depth along the optical axis, ``(height, width)`` m, inf where nothing is."""
        depth = self._static(data).copy()
        index = self._candidates(data)
        if len(index):
            distance = _cast(
                self._model,
                data,
                self._origin,
                np.ascontiguousarray(self._unit[index]),
                MOVING_GROUP,
                2.0 * self._camera.max_range,
            )
            distance[distance < 0.0] = np.inf
            depth[index] = np.minimum(depth[index], distance / self._norm[index])
        return depth.reshape(self._camera.height, self._camera.width).astype(np.float32)

    def sense(
        self, depth: NDArray[np.float32], noise: DepthNoise | None, rng: np.random.Generator
    ) -> DepthImage:
        """What the sensor reports of a noise-free depth image: ``uint16`` mm, 0 for nothing."""
        if noise is None:
            measured = depth
        else:
            seen = np.isfinite(depth)
            known = np.where(seen, depth, np.float32(0.0))
            spread = np.float32(noise.base) + np.float32(noise.growth) * known * known
            measured = known + spread * rng.standard_normal(depth.shape, dtype=np.float32)
            lost = rng.random(depth.shape, dtype=np.float32) < noise.dropout
            measured[lost | ~seen] = 0.0
        out = (measured < self._camera.min_range) | (measured > self._camera.max_range)
        return np.where(out, 0.0, np.rint(measured * 1000.0)).astype(np.uint16)


def _span(
    centre: float, radius: float, near: float, far: float, focal: float, offset: float, size: int
) -> slice:
    """Pixels of one image axis that a sphere between depths ``near`` and ``far`` can cover."""
    low, high = centre - radius, centre + radius
    first = focal * (low / near if low < 0.0 else low / far) + offset
    last = focal * (high / near if high > 0.0 else high / far) + offset
    return slice(min(size, max(0, math.floor(first))), min(size, max(0, math.ceil(last) + 1)))
