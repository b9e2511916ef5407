"""Geometry of cameras: poses, and the rays of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError

FloatArray = NDArray[np.float32]

# Distortion models of sensor_msgs/CameraInfo, and how many coefficients each may have.
DISTORTION_MODELS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
# A pixel whose undistorted ray leads back to another place than itself lies where the model no
# longer holds (the far corners of a wide lens).
LARGEST_REPROJECTION_PX = 0.1


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


@dataclass(frozen=True)
class Pose:
    """A rigid transform: ``rotation`` float64 (3, 3) and ``position`` float64 (3,), m."""

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]

    @classmethod
    def of(cls, position: list[float], quaternion_xyzw: list[float]) -> Pose:
        """The pose with this position, m, and unit quaternion."""
        return cls(rotation_from_quaternion(quaternion_xyzw), np.asarray(position, np.float64))

    def __matmul__(self, other: Pose) -> Pose:
        """First ``other``, then this one."""
        return Pose(self.rotation @ other.rotation, self.rotation @ other.position + self.position)

    def inverse(self) -> Pose:
        """The way back."""
        return Pose(self.rotation.T, -self.rotation.T @ self.position)

    def apply(self, columns: FloatArray) -> FloatArray:
        """Points (3, n), one row for each of x, y, z, moved; float32.

        Element by element: a matrix product may sum in another order on another machine.
        """
        r, p = self.rotation.astype(np.float32), self.position.astype(np.float32)
        x, y, z = columns
        return np.stack([r[i, 0] * x + r[i, 1] * y + r[i, 2] * z + p[i] for i in range(3)])


def check_distortion(intrinsics: Intrinsics) -> None:
    """Raise ContractError when rays cannot be computed for a distortion model."""
    model, count = intrinsics.distortion_model, len(intrinsics.distortion)
    if not count:
        return
    if model not in DISTORTION_MODELS:
        raise ContractError(
            f"distortion model '{model}' of the camera info is unknown: use "
            f"{', '.join(DISTORTION_MODELS)}, or rectified images"
        )
    if count not in DISTORTION_MODELS[model]:
        wanted = " or ".join(str(number) for number in DISTORTION_MODELS[model])
        raise ContractError(
            f"distortion model '{model}' has {wanted} coefficients, the camera info {count}"
        )


def _undistorted(intrinsics: Intrinsics, u: NDArray, v: NDArray) -> NDArray[np.float64]:
    """Image coordinates (2, n) at z = 1 of distorted pixels; NaN where the model doesn't hold."""
    import cv2  # only lenses with distortion need it

    c = intrinsics
    matrix = np.array([[c.fx, 0.0, c.cx], [0.0, c.fy, c.cy], [0.0, 0.0, 1.0]])
    pixels = np.stack([u, v], axis=1).reshape(-1, 1, 2)
    coefficients = np.array(c.distortion)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-12)
    if c.distortion_model == "equidistant":
        flat = cv2.fisheye.undistortPoints(pixels, matrix, coefficients, criteria=criteria)
        back = cv2.fisheye.distortPoints(flat, matrix, coefficients)
    else:
        # OpenCV 4's undistortPoints takes no criteria and stops after five steps.
        undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
        flat = undistort(pixels, matrix, coefficients, R=np.eye(3), P=np.eye(3), criteria=criteria)
        solid = np.concatenate([flat.reshape(-1, 2), np.ones((len(flat), 1))], axis=1)
        zero = np.zeros(3)
        back, _ = cv2.projectPoints(solid, zero, zero, matrix, coefficients)
    error = np.abs(back.reshape(-1, 2) - pixels.reshape(-1, 2)).max(axis=1)
    plane = flat.reshape(-1, 2).T.copy()
    plane[:, ~(error <= LARGEST_REPROJECTION_PX)] = np.nan
    return plane


def optical_rays(intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Direction of each pixel in the optical frame, float64 (3, H * W), z = 1.

    Pixels for which a distortion model doesn't hold are NaN.

    Raises:
        ContractError: unknown distortion model.
    """
    check_distortion(intrinsics)
    v, u = np.mgrid[0 : intrinsics.height, 0 : intrinsics.width].astype(np.float64)
    if intrinsics.distortion:
        x, y = _undistorted(intrinsics, u.ravel(), v.ravel())
    else:
        x = (u.ravel() - intrinsics.cx) / intrinsics.fx
        y = (v.ravel() - intrinsics.cy) / intrinsics.fy
    return np.stack([x, y, np.ones_like(x)])


def camera_rays(intrinsics: Intrinsics, rotation: NDArray[np.float64]) -> FloatArray:
    """Direction of each pixel, turned by ``rotation`` (3, 3), for a depth of 1 m along the axis.

    Returns:
        float32 (3, H * W): one contiguous row for each of x, y, z.
    """
    return np.ascontiguousarray(rotation @ optical_rays(intrinsics), dtype=np.float32)
