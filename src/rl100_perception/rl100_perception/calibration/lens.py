"""How a camera maps directions to pixels: the distortion models of sensor_msgs/CameraInfo."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rl100_contracts.calibration import LensIntrinsics
from rl100_contracts.decode import Intrinsics, decode_camera_info
from rl100_perception.cloud import check_distortion

FloatArray = NDArray[np.float64]


class Lens:
    """Projects and un-projects points of the optical frame (z forward, x right, y down).

    Raises:
        ContractError: the distortion model is unknown, or has another number of coefficients.
    """

    def __init__(self, intrinsics: LensIntrinsics) -> None:
        self.intrinsics = intrinsics
        i = intrinsics
        coefficients = i.distortion if any(i.distortion) else []
        model = i.distortion_model if coefficients else ""
        pinhole = (i.width, i.height, i.fx, i.fy, i.cx, i.cy)
        check_distortion(Intrinsics(*pinhole, model, tuple(coefficients)))
        self._fisheye = model == "equidistant"
        self._matrix = np.array([[i.fx, 0.0, i.cx], [0.0, i.fy, i.cy], [0.0, 0.0, 1.0]])
        self._coefficients = np.asarray(coefficients, dtype=np.float64)

    def project(self, points: FloatArray) -> FloatArray:
        """Pixels (n, 2) of points (n, 3), m; points behind the camera have no meaning."""
        if not len(points):
            return np.empty((0, 2))
        if not len(self._coefficients):
            pixels = points @ self._matrix.T
            return np.asarray(pixels[:, :2] / pixels[:, 2:])
        zero = np.zeros(3)
        stacked = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 1, 3)
        project = cv2.fisheye.projectPoints if self._fisheye else cv2.projectPoints
        found, _ = project(stacked, zero, zero, self._matrix, self._coefficients)
        return np.asarray(found, dtype=np.float64).reshape(-1, 2)

    def directions(self, pixels: FloatArray) -> FloatArray:
        """x/z and y/z (n, 2) of the rays through pixels (n, 2)."""
        stacked = np.ascontiguousarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
        if self._fisheye:
            found = cv2.fisheye.undistortPoints(stacked, self._matrix, self._coefficients)
        else:
            # The default of five rounds leaves 0.1 px at the corners of wide lenses.
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
            found = cv2.undistortPoints(
                stacked, self._matrix, self._coefficients, criteria=criteria
            )
        return np.asarray(found, dtype=np.float64).reshape(-1, 2)


def intrinsics_of(info: Any, *, rectified: bool) -> LensIntrinsics:
    """Intrinsics of a sensor_msgs/CameraInfo, live or from a bag.

    Args:
        info: the message.
        rectified: the images are rectified: the projection matrix holds, without distortion.

    Raises:
        ContractError: the camera is not calibrated (its focal length is 0).
    """
    found = asdict(decode_camera_info(info, rectified=rectified))
    return LensIntrinsics(**{**found, "distortion": list(found["distortion"])})
