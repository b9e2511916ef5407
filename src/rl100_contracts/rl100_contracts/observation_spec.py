"""The part of the task contract that says what the policy sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl100_contracts.fields import (
    Name,
    NotNegative,
    Positive,
    Quaternion,
    Vector3,
    check_unit,
)
from rl100_contracts.loading import StrictModel
from rl100_contracts.pose import POSE_NAMES
from rl100_contracts.streams import JOINT_FIELDS, JOINT_STATE


class ProprioceptionField(StrictModel):
    """Some values of one proprioceptive message, in the order in which the policy sees them.

    ``field`` is position, velocity or effort of a JointState (``names``: joints), or, of a
    PoseStamped, position (``names``: of x, y, z), rotation_6d (of xx, xy, xz, yx, yy, yz: the
    tool's x and y axes in the base frame) or rotation_vector (of rx, ry, rz, see ``pose``).
    """

    stream: Name
    field: Literal["position", "velocity", "effort", "rotation_6d", "rotation_vector"] = "position"
    names: list[str] = Field(min_length=1)

    def check_against(self, message_type: str) -> None:
        """Raise ValueError when messages of this type have no such values."""
        if self.field not in (JOINT_FIELDS if message_type == JOINT_STATE else POSE_NAMES):
            raise ValueError(
                f"observation.proprioception: '{self.stream}', a {message_type}, "
                f"has no {self.field}"
            )
        known = POSE_NAMES.get(self.field, ())
        wrong = [name for name in self.names if name not in known]
        if message_type != JOINT_STATE and wrong:
            raise ValueError(
                f"observation.proprioception: '{wrong[0]}' is not in {self.field} of the pose "
                f"'{self.stream}', which has {', '.join(known)}"
            )


class CropBox(StrictModel):
    """The part of space that is used: ``low`` to ``high`` in a frame of its own.

    That frame stands at ``position``, turned by ``quaternion_xyzw``, in the base frame. By default
    it is the base frame, and the box is aligned to its axes.
    """

    low: Vector3 = Field(description="m")
    high: Vector3
    position: Vector3 = Field(default=[0.0, 0.0, 0.0], description="of the box's frame, m")
    quaternion_xyzw: Quaternion = Field(default=[0.0, 0.0, 0.0, 1.0])

    @property
    def aligned(self) -> bool:
        """Whether its frame is the base frame."""
        return self.position == [0.0, 0.0, 0.0] and self.quaternion_xyzw == [0.0, 0.0, 0.0, 1.0]

    @model_validator(mode="after")
    def _ordered(self) -> CropBox:
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("the crop box is empty: each low must be below its high")
        check_unit(self.quaternion_xyzw)
        return self


class Plane(StrictModel):
    """A plane in the base frame, such as the table's, with everything below it.

    A given plane, not one that is fitted to each image: the same points are left out of equal
    images, and an object that hides the table doesn't move it.
    """

    point: Vector3 = Field(description="any point of the plane, m")
    normal: Vector3 = Field(default=[0.0, 0.0, 1.0], description="towards what is kept")
    clearance: NotNegative = Field(0.01, description="points up to here above it go too, m")

    @model_validator(mode="after")
    def _has_normal(self) -> Plane:
        if sum(value * value for value in self.normal) < 1e-12:
            raise ValueError("normal must not be zero")
        return self


class CloudSpec(StrictModel):
    """The point cloud that the policy sees: exactly ``num_points`` xyz points in the base frame.

    It is made in the order of the keys: crop, plane, voxels, thinning, farthest points.
    """

    stream: Name
    crop: CropBox
    plane: Plane | None = Field(None, description="what is left out as table; None: nothing")
    voxel_size: Positive | None = Field(
        None, description="points of one cube of a grid become their mean; its side, m"
    )
    max_candidates: int = Field(
        16384,
        ge=256,
        description="more points than this are thinned evenly before farthest points are chosen, "
        "which bounds the time that it takes",
    )
    num_points: int = Field(ge=8, le=65536)
    color: bool = Field(
        False, description="publish xyzrgb; the policy sees xyz, the colour is for people"
    )
    max_camera_skew_s: Positive = Field(
        0.02, description="largest difference of stamps within one cloud of several images, s"
    )
    relative_to: list[int] = Field(
        default_factory=list,
        description="indices of the state that hold the tool's x, y(, z), m; encoders may add "
        "tool-relative coordinates",
        max_length=3,
    )

    @model_validator(mode="after")
    def _enough(self) -> CloudSpec:
        if self.max_candidates < self.num_points:
            raise ValueError("max_candidates must not be below num_points")
        return self


class ImageSpec(StrictModel):
    """The colour image that the policy sees: RGB, cropped, then made smaller by averaging areas."""

    stream: Name
    height: int = Field(ge=8, le=1024, description="of what the policy sees, pixels")
    width: int = Field(ge=8, le=1024)
    crop: Annotated[list[int], Field(min_length=4, max_length=4)] | None = Field(
        None, description="left, top, width, height of the part that is used, pixels; None: all"
    )

    @model_validator(mode="after")
    def _inside(self) -> ImageSpec:
        if self.crop is None:
            return self
        left, top, width, height = self.crop
        if left < 0 or top < 0:
            raise ValueError("crop is left, top, width, height: left and top must not be negative")
        if width < self.width or height < self.height:
            raise ValueError(
                f"crop keeps {width}x{height} pixels, fewer than the {self.width}x{self.height} "
                "that the policy sees: images are never enlarged"
            )
        return self


class Observation(StrictModel):
    """What the policy sees: proprioception, and a cloud, an image or both."""

    proprioception: list[ProprioceptionField] = Field(min_length=1)
    cloud: CloudSpec | None = None
    image: ImageSpec | None = None
    max_skew_s: Positive = Field(
        0.05, description="largest age of a sample against the frame that it belongs to, s"
    )

    @property
    def state_dim(self) -> int:
        """Length of the proprioceptive state of one frame."""
        return sum(len(part.names) for part in self.proprioception)

    @property
    def num_points(self) -> int:
        """Points of a cloud (N); 0 where no cloud is observed."""
        return self.cloud.num_points if self.cloud else 0

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of an image, pixels; None where no image is observed."""
        return (self.image.height, self.image.width) if self.image else None

    @property
    def frame_stream(self) -> str:
        """Name of the stream whose messages begin frames: the cloud's, or else the image's."""
        frame = self.cloud or self.image
        assert frame is not None  # see below
        return frame.stream

    @model_validator(mode="after")
    def _has_frames(self) -> Observation:
        if self.cloud is None and self.image is None:
            raise ValueError("give a cloud or an image: the frames of an observation follow it")
        return self
