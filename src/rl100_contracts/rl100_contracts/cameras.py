"""The part of the task contract that says where the cameras are and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rl100_contracts.calibration import load_calibration
from rl100_contracts.errors import ContractError
from rl100_contracts.fields import Name, Positive, Quaternion, Vector3, check_unit
from rl100_contracts.loading import StrictModel

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class CalibratedPose(StrictModel):
    """Which calibration a camera's pose comes from; the pose itself stands beside it."""

    date: str = Field(description="ISO 8601, UTC")
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the calibration file's content"
    )


class Camera(StrictModel):
    """One camera: either a depth image with its camera info, or a ready point cloud.

    The pose is that of the optical frame (z forward, x right, y down) in the base frame, or, with
    ``mount: tool``, in the tool frame, which moves with the poses of the stream ``tool_pose``.
    In a task file ``calibration`` is the path of a calibration file, relative to the task file;
    ``load_task`` puts its pose, date and hash in place, so that a saved task needs no other file.
    """

    depth: Name | None = Field(None, description="stream of depth images")
    camera_info: Name | None = Field(None, description="stream of the depth images' camera info")
    points: Name | None = Field(None, description="stream of PointCloud2, in place of depth")
    color: Name | None = Field(
        None, description="stream of colour images that are aligned to the depth images"
    )
    frame: str = "camera_depth_optical_frame"
    mount: Literal["fixed", "tool"] = "fixed"
    tool_pose: Name | None = Field(None, description="mount tool: stream of the tool's poses")
    position: Vector3 = Field(description="of the optical frame, m")
    quaternion_xyzw: Quaternion
    calibration: CalibratedPose | None = Field(
        None, description="None: the pose was given by hand, or by a CAD model"
    )
    rectified: bool = Field(
        False, description="depth images are rectified: P of the camera info holds, without D"
    )
    depth_scale: Positive = Field(0.001, description="metres per unit of an integer depth image")
    depth_range: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        default=[0.1, 3.0], description="valid depths, m"
    )
    edge_threshold: Positive | None = Field(
        None,
        description="pixels whose depth differs by more from a neighbour's (above, below, left or "
        "right) are left out, m: they often hover between two surfaces; None: kept",
    )

    @model_validator(mode="after")
    def _whole(self) -> Camera:
        if (self.depth is None) == (self.points is None):
            raise ValueError("give either depth (with camera_info) or points")
        if (self.depth is None) != (self.camera_info is None):
            raise ValueError("depth and camera_info belong together")
        if self.depth is None:
            for key in ("color", "edge_threshold"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} is for depth images, not for a camera with points")
        if (self.mount == "tool") != (self.tool_pose is not None):
            raise ValueError(
                "mount: tool needs tool_pose, the stream of the tool's poses, and no other mount "
                "has it"
            )
        if not 0.0 <= self.depth_range[0] < self.depth_range[1]:
            raise ValueError("depth_range must be [near, far] with 0 <= near < far")
        check_unit(self.quaternion_xyzw)
        return self

    @property
    def streams(self) -> list[str]:
        """Names of the streams that a cloud of this camera is made from, the images first."""
        names = (self.depth, self.points, self.color, self.camera_info, self.tool_pose)
        return [name for name in names if name is not None]

    @property
    def source(self) -> str:
        """Name of the stream of its depth images, or of its point clouds."""
        source = self.depth or self.points
        assert source is not None  # see _whole
        return source


def resolve_calibrations(data: Any, folder: Path, source: str) -> Any:
    """Task data with the pose of each calibration file in place of the file's path.

    Args:
        data: what a task file holds.
        folder: of the task file; paths are relative to it.
        source: names the task file in errors.

    Raises:
        ContractError: a file is missing or changed, is of another mount, frame or parent frame, or
            the camera states a pose of its own as well.
    """
    cameras = data.get("cameras") if isinstance(data, dict) else None
    if not isinstance(cameras, dict):
        return data
    resolved = {}
    for name, camera in cameras.items():
        if isinstance(camera, dict) and isinstance(camera.get("calibration"), str):
            camera = _calibrated(camera, data, folder, f"{source}: key 'cameras.{name}'")
        resolved[name] = camera
    return {**data, "cameras": resolved}


def _calibrated(
    camera: dict[str, Any], data: dict[str, Any], folder: Path, key: str
) -> dict[str, Any]:
    for own in ("position", "quaternion_xyzw"):
        if own in camera:
            raise ContractError(f"{key}: give either calibration or {own}, not both")
    path = folder / camera["calibration"]
    found = load_calibration(path)
    mount = camera.get("mount", "fixed")
    parent = data.get("base_frame", "base_link")
    if mount == "tool":
        parent = data.get("tool_frame", "tool0")
    stated = {"mount": mount, "frame": camera.get("frame", found.frame), "parent_frame": parent}
    for what, wanted in stated.items():
        if getattr(found, what) != wanted:
            raise ContractError(
                f"{key}: calibration {path} has {what} {getattr(found, what)}, the task {wanted}: "
                "name the calibration of this camera, or mend the task"
            )
    return {
        **camera,
        "frame": found.frame,
        "position": found.position,
        "quaternion_xyzw": found.quaternion_xyzw,
        "calibration": {"date": found.date, "hash": found.hash},
    }
