"""The task contract: what is observed, what is commanded, how fast, and within which limits."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from rl100_contracts.action_space import ActionSpace
from rl100_contracts.cameras import IMAGE_TYPES, Camera, resolve_calibrations
from rl100_contracts.errors import ContractError
from rl100_contracts.fields import Name, Positive
from rl100_contracts.loading import StrictModel, parse_model, read_yaml
from rl100_contracts.observation_spec import CloudSpec, Observation
from rl100_contracts.robot import Robot
from rl100_contracts.streams import JOINT_STATE, POSE_STAMPED, Role, Stream

NANOSECONDS = 1_000_000_000


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
    """What the command gateway never exceeds, in the coordinates of the action (m or rad, s)."""

    position_low: list[float]
    position_high: list[float]
    velocity: list[Positive]
    acceleration: list[Positive]
    jerk: list[Positive]
    max_tracking_error: Positive = Field(description="target minus feedback that stops motion")

    @property
    def jerk_free_s(self) -> float:
        """In control periods of this length or longer the jerk limit changes no motion, s."""
        return max(2.0 * a / j for a, j in zip(self.acceleration, self.jerk, strict=True))


class Safety(StrictModel):
    """When the gateway stops trusting its inputs."""

    feedback_timeout_s: Positive = 0.2
    chunk_timeout_s: Positive = Field(
        default=0.5, description="life of a chunk past its last action, s"
    )
    observation_timeout_s: Positive = 0.3
    deadman: Literal["off", "hold", "stop"] = Field(
        default="off",
        description="whether a person must hold the dead-man switch (/rl100/deadman) for any "
        "motion, and what its release does; not part of the hash, as is deadman_timeout_s",
    )
    deadman_timeout_s: Positive = Field(
        default=0.2, description="silence of the dead-man switch that counts as its release, s"
    )


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
    cameras: dict[Name, Camera] = Field(
        default_factory=dict, description="the cloud is made from all of them, in this order"
    )
    action: ActionSpace
    limits: Limits
    robot: Robot | None = Field(
        None, description="None: targets are not checked by kinematics; not part of the hash"
    )
    safety: Safety = Field(default_factory=lambda: Safety())
    latency: Latency = Latency()
    reward: Reward = Reward()
    episode: Episodes

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the contract."""
        # How targets are checked does not change what was recorded or learned.
        data = self._data({"description", "robot"})
        for key in ("deadman", "deadman_timeout_s"):
            del data["safety"][key]
        if self.limits.jerk_free_s <= 1.0 / self.control.rate_hz:
            # The same motion as before there was this limit, so the same task.
            del data["limits"]["jerk"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def proprioception_streams(self) -> list[str]:
        """Names of the proprioceptive streams in the order of the state."""
        return list(dict.fromkeys(part.stream for part in self.observation.proprioception))

    @property
    def action_stream(self) -> str:
        """Name of the stream that holds the executed actions."""
        return next(n for n, s in self.streams.items() if s.role is Role.ACTION)

    @property
    def cloud(self) -> CloudSpec:
        """The cloud that is made of the cameras' images.

        Raises:
            ContractError: the task observes no cloud.
        """
        if self.observation.cloud is None:
            raise ContractError(
                f"task '{self.name}' observes no point cloud, so there is nothing for perception "
                "to do: leave it out"
            )
        return self.observation.cloud

    def to_yaml(self) -> str:
        """The task as YAML text that loads to an equal task."""
        return str(yaml.safe_dump(self._data(set()), sort_keys=False))

    def _data(self, exclude: set[str]) -> dict[str, Any]:
        """All values but ``exclude``; a key that came later counts only where it is used."""
        data = self.model_dump(mode="json", exclude=exclude)
        if self.robot is None:
            data.pop("robot", None)
        if self.action.quaternion_xyzw is None:
            del data["action"]["quaternion_xyzw"]
        if self.observation.image is None:
            del data["observation"]["image"]
        return data

    @classmethod
    def name_at(cls, data: dict[str, Any], location: tuple[int | str, ...]) -> str:
        """Axis or joint: limits and actions follow ``action.names``."""
        action = data.get("action")
        names = action.get("names") if isinstance(action, dict) else None
        match location:
            case ("limits", _, int(i)) | ("action", "low" | "high", int(i)):
                return str(names[i]) if isinstance(names, list) and i < len(names) else ""
        return ""

    @model_validator(mode="before")
    @classmethod
    def _no_single_camera(cls, data: Any) -> Any:
        if isinstance(data, dict) and "camera" in data:
            raise ValueError(
                "camera has become cameras, a mapping: write cameras: {front: {...}} and move "
                "crop_low and crop_high to observation.cloud.crop: {low: ..., high: ...}"
            )
        return data

    def _check_stream(self, key: str, name: str, role: Role) -> None:
        stream = self.streams.get(name)
        if stream is None:
            raise ValueError(f"{key} names the stream '{name}', which streams does not have")
        if stream.role is not role:
            raise ValueError(
                f"{key}: stream '{name}' has role {stream.role.value}, not {role.value}"
            )

    def _check_type(self, key: str, name: str, cartesian: bool) -> None:
        wanted, found = POSE_STAMPED if cartesian else JOINT_STATE, self.streams[name].type
        if found != wanted:
            raise ValueError(f"{key}: stream '{name}' has type {found}, not {wanted}")

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        for part in self.observation.proprioception:
            self._check_stream("observation.proprioception", part.stream, Role.PROPRIOCEPTION)
            part.check_against(self.streams[part.stream].type)
        self._check_views()
        self._check_stream("action.feedback", self.action.feedback, Role.PROPRIOCEPTION)
        self._check_type("action.feedback", self.action.feedback, self.action.is_cartesian)
        others = [name for name in self.action.names if name not in self.joint_names]
        if others and not self.action.is_cartesian:
            raise ValueError(
                f"action.names has '{others[0]}', which is not in joint_names "
                f"({', '.join(self.joint_names)}): in {self.action.space} they are joints"
            )
        if self.robot is not None:
            key = "robot.joint_states"
            self._check_stream(key, self.robot.joint_states, Role.PROPRIOCEPTION)
            self._check_type(key, self.robot.joint_states, False)
        if sum(stream.role is Role.ACTION for stream in self.streams.values()) != 1:
            raise ValueError("streams must have exactly one stream with role action")
        topics = [stream.topic for stream in self.streams.values()]
        if len(set(topics)) != len(topics):
            raise ValueError("streams: two streams have the same topic")
        dim = self.action.dim
        for key in ("position_low", "position_high", "velocity", "acceleration", "jerk"):
            if len(getattr(self.limits, key)) != dim:
                raise ValueError(f"limits.{key} needs {dim} values, one for each of action.names")
        pairs = zip(self.limits.position_low, self.limits.position_high, strict=True)
        if any(low >= high for low, high in pairs):
            raise ValueError("limits: each position_low must be below its position_high")
        self.action.check_turns(self.limits.position_low, self.limits.position_high)
        return self

    def _check_views(self) -> None:
        cloud, image = self.observation.cloud, self.observation.image
        if cloud is not None:
            self._check_stream("observation.cloud.stream", cloud.stream, Role.CLOUD)
            if any(not 0 <= i < self.observation.state_dim for i in cloud.relative_to):
                raise ValueError("observation.cloud.relative_to has an index outside the state")
            if not self.cameras:
                raise ValueError("cameras is missing: observation.cloud is made of their images")
        if image is not None:
            self._check_stream("observation.image.stream", image.stream, Role.IMAGE)
            self._check_image("observation.image", image.stream)
        for name, camera in self.cameras.items():
            self._check_camera(f"cameras.{name}", camera)
        sources = [camera.source for camera in self.cameras.values()]
        if len(set(sources)) < len(sources):
            raise ValueError("cameras: two cameras have the same images")

    def _check_camera(self, key: str, camera: Camera) -> None:
        cloud = self.observation.cloud
        if camera.depth is not None and camera.camera_info is not None:
            self._check_stream(f"{key}.depth", camera.depth, Role.DEPTH)
            self._check_stream(f"{key}.camera_info", camera.camera_info, Role.CAMERA_INFO)
        if camera.points is not None:
            self._check_stream(f"{key}.points", camera.points, Role.CLOUD)
            if cloud is not None and camera.points == cloud.stream:
                raise ValueError(
                    f"{key}.points is the cloud that perception publishes: name the stream of the "
                    "camera's own cloud"
                )
        if camera.color is not None:
            self._check_stream(f"{key}.color", camera.color, Role.IMAGE)
            self._check_image(f"{key}.color", camera.color)
        elif cloud is not None and cloud.color and camera.points is None:
            raise ValueError(f"{key}: observation.cloud.color needs the camera's stream color")
        if camera.tool_pose is not None:
            self._check_stream(f"{key}.tool_pose", camera.tool_pose, Role.PROPRIOCEPTION)
            self._check_type(f"{key}.tool_pose", camera.tool_pose, True)

    def _check_image(self, key: str, name: str) -> None:
        if self.streams[name].type not in IMAGE_TYPES:
            raise ValueError(f"{key}: stream '{name}' must be of type {' or '.join(IMAGE_TYPES)}")


def _task_folder() -> Path:
    return Path(str(resources.files("rl100_contracts") / "tasks"))


def builtin_tasks() -> list[str]:
    """Names of the tasks that come with the package."""
    names = [entry.name for entry in _task_folder().iterdir()]
    return sorted(Path(name).stem for name in names if name.endswith(".yaml"))


def _task_file(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(text)
    if text not in builtin_tasks():
        known = ", ".join(builtin_tasks())
        raise ContractError(
            f"task '{text}' is unknown: give one of the built-in tasks ({known}) "
            "or the path of a task file that ends in .yaml"
        )
    return _task_folder() / f"{text}.yaml"


def task_folder(name_or_path: str | Path) -> Path:
    """The folder of a task file, to which its paths are relative; raises ContractError."""
    return _task_file(name_or_path).absolute().parent


def load_task(name_or_path: str | Path) -> Task:
    """Load a task by the name of a built-in one or the path of a YAML file.

    Raises:
        ContractError: one sentence that names the file and the key.
    """
    path = _task_file(name_or_path)
    data = resolve_calibrations(read_yaml(path), path.parent, str(path))
    return parse_model(Task, data, str(path))
