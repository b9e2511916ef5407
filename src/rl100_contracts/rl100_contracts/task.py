"""The task contract: what is observed, what is commanded, how fast, and within which limits."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import StrictModel, load_yaml_model

NANOSECONDS = 1_000_000_000

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Topic = Annotated[str, Field(pattern=r"^/[A-Za-z][A-Za-z0-9_/]*[A-Za-z0-9_]$")]
MessageType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*$")]
Positive = Annotated[float, Field(gt=0)]
Vector3 = Annotated[list[float], Field(min_length=3, max_length=3)]


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


class ProprioceptionField(StrictModel):
    """Some values of one proprioceptive message, in the order in which the policy sees them.

    ``field`` is position, velocity or effort of a JointState (``names``: joints) or position of a
    PoseStamped (``names``: of x, y, z).
    """

    stream: Name
    field: Literal["position", "velocity", "effort"] = "position"
    names: list[str] = Field(min_length=1)


class CloudSpec(StrictModel):
    """The point cloud that the policy sees: exactly ``num_points`` xyz points in the base frame."""

    stream: Name
    num_points: int = Field(ge=8, le=65536)
    relative_to: list[int] = Field(
        default_factory=list,
        description="indices of the state that hold the tool's x, y(, z), m; encoders may add "
        "tool-relative coordinates",
        max_length=3,
    )


class Observation(StrictModel):
    """What the policy sees."""

    proprioception: list[ProprioceptionField] = Field(min_length=1)
    cloud: CloudSpec
    max_skew_s: Positive = Field(
        0.05, description="largest age of a proprioceptive sample against its cloud, s"
    )

    @property
    def state_dim(self) -> int:
        """Length of the proprioceptive state of one frame."""
        return sum(len(part.names) for part in self.proprioception)


class Camera(StrictModel):
    """A depth camera: where it is and which part of its view is used."""

    depth: Name
    camera_info: Name
    frame: str = "camera_depth_optical_frame"
    position: Vector3 = Field(description="of the optical frame in the base frame, m")
    quaternion_xyzw: Annotated[list[float], Field(min_length=4, max_length=4)]
    depth_scale: Positive = Field(0.001, description="metres per unit of an integer depth image")
    depth_range: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        default=[0.1, 3.0], description="valid depths, m"
    )
    crop_low: Vector3 = Field(description="crop box in the base frame, m")
    crop_high: Vector3

    @model_validator(mode="after")
    def _ordered(self) -> Camera:
        if any(low >= high for low, high in zip(self.crop_low, self.crop_high, strict=True)):
            raise ValueError("the crop box is empty: each crop_low must be below its crop_high")
        if not 0.0 <= self.depth_range[0] < self.depth_range[1]:
            raise ValueError("depth_range must be [near, far] with 0 <= near < far")
        if abs(sum(q * q for q in self.quaternion_xyzw) - 1.0) > 1e-3:
            raise ValueError("quaternion_xyzw must have unit length")
        return self


class ActionSpace(StrictModel):
    """What an action means and where commands go.

    ``delta_*`` spaces add the action to the last commanded target; the others are the target.
    """

    space: Literal["tool_position", "delta_tool_position", "joint_position", "delta_joint_position"]
    names: list[str] = Field(min_length=1, description="axes (x, y, z) or joint names")
    low: list[float] = Field(description="smallest action, m or rad (per step for deltas)")
    high: list[float]
    command: Topic
    command_type: Literal["geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray"]
    feedback: Name = Field(description="stream that measures the commanded coordinates")
    fixed_position: dict[str, float] = Field(
        default_factory=dict, description="Cartesian axes that are not commanded, m"
    )

    @property
    def dim(self) -> int:
        """Number of values in one action (d)."""
        return len(self.names)

    @property
    def is_delta(self) -> bool:
        """Whether actions are added to the last target."""
        return self.space.startswith("delta_")

    @property
    def is_cartesian(self) -> bool:
        """Whether actions move the tool in the base frame (else joints)."""
        return self.space.endswith("tool_position")

    @model_validator(mode="after")
    def _shapes(self) -> ActionSpace:
        if not len(self.low) == len(self.high) == len(self.names):
            raise ValueError("names, low and high must have the same length")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("each low must be below its high")
        if self.is_cartesian and (
            set(self.names) - {"x", "y", "z"} or len(set(self.names)) < len(self.names)
        ):
            raise ValueError("names of a Cartesian action are of x, y, z")
        return self


class Control(StrictModel):
    """How fast, and how many frames and actions a decision has."""

    rate_hz: Annotated[float, Field(gt=0, le=1000)]
    n_obs_steps: int = Field(ge=1, le=16, description="frames in an observation (n_o)")
    n_action_steps: int = Field(ge=1, le=64, description="actions executed per decision (n_c)")

    @property
    def period_ns(self) -> int:
        """Control period, ns."""
        return round(NANOSECONDS / self.rate_hz)


class Limits(StrictModel):
    """What the command gateway never exceeds, in the coordinates of the action (m or rad)."""

    position_low: list[float]
    position_high: list[float]
    velocity: list[Positive]
    acceleration: list[Positive]
    max_tracking_error: Positive = Field(description="target minus feedback that stops motion")


class Safety(StrictModel):
    """When the gateway stops trusting its inputs."""

    feedback_timeout_s: Positive = 0.2
    chunk_timeout_s: Positive = Field(
        default=0.5, description="life of a chunk past its last action, s"
    )
    observation_timeout_s: Positive = 0.3


class Latency(StrictModel):
    """Known delays, s: camera exposure to header stamp, and command to motion."""

    observation_s: Annotated[float, Field(ge=0)] = 0.0
    action_s: Annotated[float, Field(ge=0)] = 0.0


class Reward(StrictModel):
    """How an episode's verdict becomes rewards (sparse, see the paper's reward design)."""

    success: float = 1.0
    step_penalty: Annotated[float, Field(ge=0)] = 0.0
    jitter_penalty: Annotated[float, Field(ge=0)] = 0.0


class Episodes(StrictModel):
    """Length of an episode and when its recording is good enough."""

    max_steps: int = Field(ge=1, le=100_000)
    max_missing_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_gap_s: Positive = 0.25


class Task(StrictModel):
    """One task. ``hash`` changes with every value, and travels with episodes and bundles."""

    format_version: Literal[1] = 1
    name: Name
    description: str = ""
    base_frame: str = "base_link"
    tool_frame: str = "tool0"
    joint_names: list[str] = Field(min_length=1)
    control: Control
    streams: dict[Name, Stream]
    observation: Observation
    camera: Camera
    action: ActionSpace
    limits: Limits
    safety: Safety = Field(default_factory=lambda: Safety())
    latency: Latency = Latency()
    reward: Reward = Reward()
    episode: Episodes

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the contract."""
        data = self.model_dump(mode="json", exclude={"description"})
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def proprioception_streams(self) -> list[str]:
        """Names of the proprioceptive streams in the order of the state."""
        return list(dict.fromkeys(part.stream for part in self.observation.proprioception))

    @property
    def action_stream(self) -> str:
        """Name of the stream that holds the executed actions."""
        return next(n for n, s in self.streams.items() if s.role is Role.ACTION)

    def to_yaml(self) -> str:
        """The task as YAML text that loads to an equal task."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))

    def _check_stream(self, key: str, name: str, role: Role) -> None:
        stream = self.streams.get(name)
        if stream is None:
            raise ValueError(f"{key} names the stream '{name}', which streams does not have")
        if stream.role is not role:
            raise ValueError(
                f"{key}: stream '{name}' has role {stream.role.value}, not {role.value}"
            )

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        for part in self.observation.proprioception:
            self._check_stream("observation.proprioception", part.stream, Role.PROPRIOCEPTION)
        self._check_stream("observation.cloud.stream", self.observation.cloud.stream, Role.CLOUD)
        self._check_stream("camera.depth", self.camera.depth, Role.DEPTH)
        self._check_stream("camera.camera_info", self.camera.camera_info, Role.CAMERA_INFO)
        self._check_stream("action.feedback", self.action.feedback, Role.PROPRIOCEPTION)
        if sum(stream.role is Role.ACTION for stream in self.streams.values()) != 1:
            raise ValueError("streams must have exactly one stream with role action")
        topics = [stream.topic for stream in self.streams.values()]
        if len(set(topics)) != len(topics):
            raise ValueError("streams: two streams have the same topic")
        dim = self.action.dim
        for key in ("position_low", "position_high", "velocity", "acceleration"):
            if len(getattr(self.limits, key)) != dim:
                raise ValueError(f"limits.{key} needs {dim} values, one for each of action.names")
        pairs = zip(self.limits.position_low, self.limits.position_high, strict=True)
        if any(low >= high for low, high in pairs):
            raise ValueError("limits: each position_low must be below its position_high")
        if any(not 0 <= i < self.observation.state_dim for i in self.observation.cloud.relative_to):
            raise ValueError("observation.cloud.relative_to has an index outside the state")
        return self


def _task_folder() -> Path:
    return Path(str(resources.files("rl100_contracts") / "tasks"))


def builtin_tasks() -> list[str]:
    """Names of the tasks that come with the package."""
    names = [entry.name for entry in _task_folder().iterdir()]
    return sorted(Path(name).stem for name in names if name.endswith(".yaml"))


def load_task(name_or_path: str | Path) -> Task:
    """Load a task by the name of a built-in one or the path of a YAML file.

    Raises:
        ContractError: one sentence that names the file and the key.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return load_yaml_model(Task, Path(text))
    if text not in builtin_tasks():
        known = ", ".join(builtin_tasks())
        raise ContractError(
            f"task '{text}' is unknown: give one of the built-in tasks ({known}) "
            "or the path of a task file that ends in .yaml"
        )
    return load_yaml_model(Task, _task_folder() / f"{text}.yaml")
