"""The part of the task contract that names the recorded topics."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from pydantic import Field

from rl100_contracts.fields import MessageType, Positive, Topic
from rl100_contracts.loading import StrictModel

JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_FIELDS = ("position", "velocity", "effort")
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"


class Role(str, Enum):
    """What a stream is for."""

    PROPRIOCEPTION = "proprioception"
    CLOUD = "cloud"
    IMAGE = "image"
    DEPTH = "depth"
    CAMERA_INFO = "camera_info"
    ACTION = "action"
    EVENT = "event"


class Stream(StrictModel):
    """One recorded topic."""

    topic: Topic
    type: MessageType
    role: Role
    qos: Literal["reliable", "sensor"] = "reliable"
    rate_hz: Positive | None = Field(None, description="nominal rate, Hz; None: irregular")
    required: bool = Field(True, description="an episode without it is refused")
