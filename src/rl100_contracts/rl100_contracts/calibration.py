"""A calibrated camera pose on disk: one YAML file that says where a camera is, and how well.

``rl100 calibrate camera`` writes it; ``camera.calibration`` of a task names it. Its ``hash`` is
over all of its content, so a file that was changed by hand is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, field_validator, model_validator

from rl100_contracts.errors import ContractError
from rl100_contracts.fields import Name, Positive, Quaternion, Vector3
from rl100_contracts.loading import StrictModel, load_yaml_model, write_text_atomic

NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Board(StrictModel):
    """A calibration board. The default is what ``rl100 calibrate board`` prints on A4."""

    kind: Literal["charuco", "apriltag_grid"] = "charuco"
    columns: int = Field(
        default=7, ge=2, le=50, description="squares (charuco) or tags (apriltag_grid)"
    )
    rows: int = Field(default=5, ge=2, le=50)
    square_m: Positive = Field(
        default=0.036,
        description="side of a square; in a grid from tag to tag, m",
    )
    marker_m: Positive = Field(default=0.027, description="side of a marker's black border, m")
    dictionary: str = Field(
        default="DICT_5X5_100",
        pattern=r"^DICT_[A-Za-z0-9_]+$",
        description="of OpenCV's markers; apriltag_grid: DICT_APRILTAG_36h11 unless it is given",
    )

    @model_validator(mode="before")
    @classmethod
    def _tags(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") == "apriltag_grid":
            return {"dictionary": "DICT_APRILTAG_36h11", **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> Board:
        if self.marker_m >= self.square_m:
            raise ValueError("the marker (marker_m) must be smaller than the square (square_m)")
        if self.kind == "charuco" and min(self.columns, self.rows) < 3:
            raise ValueError("a charuco board needs at least 3 columns and 3 rows")
        return self

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the pattern, m."""
        gap = 0.0 if self.kind == "charuco" else self.square_m - self.marker_m
        return self.columns * self.square_m - gap, self.rows * self.square_m - gap


class LensIntrinsics(StrictModel):
    """Of the images that a calibration was made from, in pixels, as in sensor_msgs/CameraInfo."""

    width: Count
    height: Count
    fx: Positive
    fy: Positive
    cx: float
    cy: float
    distortion_model: str = ""
    distortion: list[float] = Field(default_factory=list, max_length=14)


class Residuals(StrictModel):
    """How well the views agree with the result.

    The translation and rotation are root mean squares, over the views, of where the board was seen
    against where the robot puts it. The spread is the largest change of the result when one view
    is left out.
    """

    translation_mm: NotNegative
    rotation_deg: NotNegative
    reprojection_px: NotNegative = Field(description="root mean square over all corners")
    spread_translation_mm: NotNegative | None = None
    spread_rotation_deg: NotNegative | None = None


class CameraCalibration(StrictModel):
    """Pose of a camera's optical frame, and where it comes from.

    ``position`` (m) and ``quaternion_xyzw`` give the optical frame ``frame`` in ``parent_frame``:
    the robot's base frame (``mount: fixed``) or its tool frame (``mount: tool``).
    """

    format_version: Literal[1] = 1
    camera: Name
    frame: str = Field(min_length=1, description="optical frame: z forward, x right, y down")
    mount: Literal["fixed", "tool"]
    parent_frame: str = Field(min_length=1)
    position: Vector3
    quaternion_xyzw: Quaternion
    date: str = Field(description="ISO 8601, UTC, e.g. 2026-01-31T12:00:00Z")
    method: str = Field(min_length=1)
    board: Board | None = Field(default=None, description="None: not made with a board")
    views: int = Field(ge=1, description="that the result is made of")
    rejected: list[str] = Field(default_factory=list, description="views left out as outliers")
    residuals: Residuals
    intrinsics: LensIntrinsics | None = None

    @field_validator("date")
    @classmethod
    def _utc(cls, value: str) -> str:
        try:
            datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            raise ValueError("must be in UTC like 2026-01-31T12:00:00Z") from None
        return value

    @model_validator(mode="after")
    def _unit(self) -> CameraCalibration:
        if abs(sum(q * q for q in self.quaternion_xyzw) - 1.0) > 1e-3:
            raise ValueError("quaternion_xyzw must have unit length")
        return self

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the content."""
        data = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def matrix(self) -> np.ndarray:
        """Optical frame to ``parent_frame``, float64 (4, 4), m."""
        from rl100_contracts.pose import rotation_of

        made = np.eye(4)
        made[:3, :3] = rotation_of(self.quaternion_xyzw).as_matrix()
        made[:3, 3] = self.position
        return made


class _Stored(CameraCalibration):
    """What the file holds: the calibration and its hash."""

    sha256: str = Field(alias="hash", pattern=r"^[0-9a-f]{64}$")


def utc_now() -> str:
    """The present in the form of ``date``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def load_calibration(path: str | Path) -> CameraCalibration:
    """Load a calibration file.

    Raises:
        ContractError: one sentence that names the file and the key, or says that the content was
            changed after it was calibrated.
    """
    stored = load_yaml_model(_Stored, Path(path))
    made = CameraCalibration(**stored.model_dump(exclude={"sha256"}))
    if made.hash != stored.sha256:
        raise ContractError(
            f"{path}: key 'hash' does not fit the content, which was changed after the "
            "calibration: calibrate again (rl100 calibrate camera), or give a pose of your own "
            "as position and quaternion_xyzw of the camera in the task file"
        )
    return made


def save_calibration(
    calibration: CameraCalibration, path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a calibration file atomically.

    Raises:
        ContractError: the file is there and ``overwrite`` is not set, or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ContractError(f"{path}: is a folder; give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise ContractError(
            f"{path}: is there already, with another calibration: give another name, or say that "
            "it may be overwritten (--overwrite)"
        )
    data = {**calibration.model_dump(mode="json"), "hash": calibration.hash}
    text = "# Written by rl100 calibrate camera; a file changed by hand is refused (hash).\n"
    try:
        write_text_atomic(path, text + str(yaml.safe_dump(data, sort_keys=False)))
    except OSError as error:
        raise ContractError(f"{path}: cannot be written ({error.strerror})") from None
