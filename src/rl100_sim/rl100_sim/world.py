"""The simulated world of the push task, in plain Python: reset, step, observe, ground truth.

Everything is a function of the seed and the commands: the same seed and the same commands give
bit-identical observations, in whatever order and however often they are asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from rl100_contracts.cameras import Camera
from rl100_contracts.task import Task
from rl100_sim.camera import CameraModel, DepthCamera, DepthImage, DepthNoise, quaternion_matrix
from rl100_sim.colour import ColourCamera, ColourImage
from rl100_sim.playable import check_world
from rl100_sim.robot import ArmKinematics, Firmware
from rl100_sim.scene import (
    PushScene,
    Randomisation,
    Variation,
    apply_variation,
    compile_scene,
    draw_variation,
)

FloatArray = NDArray[np.float64]

_log = logging.getLogger(__name__)
_BREAKDOWNS = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)
# Else MuJoCo writes a log file into whatever the current directory is.
mujoco.set_mju_user_warning(_log.warning)


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviations of the joint sensors (rad, rad/s), and the depth camera's noise."""

    joint_position: float = 2e-4
    joint_velocity: float = 5e-3
    depth: DepthNoise | None = field(default_factory=DepthNoise)

    @staticmethod
    def none() -> SensorNoise:
        """Perfect sensors (depth is still in whole millimetres)."""
        return SensorNoise(0.0, 0.0, None)


@dataclass(frozen=True)
class ImageSize:
    """Size (pixels) and horizontal field of view (rad) of the depth and the colour image."""

    width: int = 128
    height: int = 96
    horizontal_fov: float = math.radians(46.0)


@dataclass(frozen=True)
class Proprioception:
    """Measured joints ``(2,)`` (rad, rad/s) and the tool ``(2,)`` (m) that follows from them."""

    joint_positions: FloatArray
    joint_velocities: FloatArray
    tool_xy: FloatArray


@dataclass(frozen=True)
class Truth:
    """Ground truth of one tick (m, rad, base frame).

    ``done``: success, the step limit, or physics that broke down (never seen, but never hidden).
    """

    seed: int
    step: int
    tool_position: FloatArray
    tool_target: FloatArray
    block_position: FloatArray
    block_yaw: float
    goal_position: FloatArray
    distance: float
    success: bool
    done: bool


#: Of the optical frame where the task states none, as it has no depth camera: position (m) and
#: quaternion (x, y, z, w) in the base frame. It looks down at the table from behind the goal.
CAMERA_POSITION = (0.62, 0.0, 0.62)
CAMERA_QUATERNION = (0.653281, 0.653281, -0.270598, -0.270598)


def cameras_of_task(task: Task, size: ImageSize) -> dict[str, CameraModel]:
    """The task's depth cameras by their names."""
    return {name: camera_model(camera, size) for name, camera in task.cameras.items()}


def camera_model(stated: Camera | None, size: ImageSize) -> CameraModel:
    """A camera at the pose that the task states (or the usual one), with square pixels."""
    focal = size.width / 2.0 / math.tan(size.horizontal_fov / 2.0)
    position: Sequence[float] = CAMERA_POSITION
    quaternion: Sequence[float] = CAMERA_QUATERNION
    near, far = 0.0, math.inf
    if stated is not None:
        position, quaternion = stated.position, stated.quaternion_xyzw
        near, far = stated.depth_range
    return CameraModel(
        width=size.width,
        height=size.height,
        fx=focal,
        fy=focal,
        cx=(size.width - 1) / 2.0,
        cy=(size.height - 1) / 2.0,
        position=np.array(position, dtype=np.float64),
        rotation=quaternion_matrix(quaternion),
        min_range=near,
        max_range=far,
    )


class PushWorld:
    """One push scene with its robot and its camera.

    The task gives the control rate, the episode length, the camera's pose and the joint names.
    One :meth:`step` is one control period. Call :meth:`reset` before anything else.
    """

    def __init__(
        self,
        task: Task,
        *,
        scene: PushScene | None = None,
        randomisation: Randomisation | None = None,
        noise: SensorNoise | None = None,
        image: ImageSize | None = None,
        command_timeout_s: float | None = None,
    ) -> None:
        self.task = task
        self.scene = scene or PushScene()
        self.randomisation = randomisation or Randomisation()
        self.noise = noise or SensorNoise()
        timestep = self.scene.timestep
        check_world(task, timestep)
        self.substeps = round(1.0 / (task.control.rate_hz * timestep))
        self.kinematics = ArmKinematics(self.scene.arm_x, self.scene.link_1, self.scene.link_2)
        self.firmware = Firmware(
            self.kinematics,
            tick_s=timestep,
            timeout_steps=None
            if command_timeout_s is None
            else round(command_timeout_s / timestep),
        )
        self.model = compile_scene(self.scene)
        self.data = mujoco.MjData(self.model)
        size = image or ImageSize()
        self.cameras = cameras_of_task(task, size)
        models = self.cameras or {"": camera_model(None, size)}
        # With the first one's lens the robot also sees colour.
        self.camera = next(iter(models.values()))
        self._depths = {name: DepthCamera(self.model, model) for name, model in models.items()}
        self._colour: ColourCamera | None = None  # made when it is first looked through
        joint = self.model.joint("block_joint")
        self._block_qpos = int(self.model.jnt_qposadr[joint.id])
        self._goal = np.array([*self.scene.goal, self.scene.block_half[2]])
        self.tool_height = self.scene.pusher_bottom + self.scene.pusher_radius
        self._generators = {
            name: np.random.Generator(np.random.Philox())
            for name in ("joints", *(f"depth {camera}" for camera in self._depths))
        }
        self._noise_keys: dict[str, NDArray[Any]] = {}
        self.seed = 0
        self.reset(0)

    def reset(self, seed: int) -> Variation:
        """Start the episode of ``seed`` (>= 0). The robot stands still; nothing moves."""
        variation = draw_variation(self.scene, self.randomisation, seed)
        self.seed, self.variation = seed, variation
        self._physics_steps = 0
        apply_variation(self.model, self.scene, variation)
        mujoco.mj_resetData(self.model, self.data)
        self.firmware.reset(variation.tool_xy, delay_steps=variation.delay_steps)
        joints = self.kinematics.inverse(*variation.tool_xy.tolist())
        assert joints is not None  # the firmware has just stood there
        self.data.qpos[:2] = joints
        self.data.ctrl[:2] = joints
        half = variation.block_yaw / 2.0
        q = self._block_qpos
        self.data.qpos[q : q + 3] = (*variation.block_xy, self.scene.block_half[2])
        self.data.qpos[q + 3 : q + 7] = (math.cos(half), 0.0, 0.0, math.sin(half))
        mujoco.mj_forward(self.model, self.data)
        for depth in self._depths.values():
            depth.place(variation.camera_shift, variation.camera_rotation)
        if self._colour is not None:
            self._colour.place(variation.camera_shift, variation.camera_rotation)
        keys: NDArray[Any] = np.random.SeedSequence([seed, 0x5E450]).generate_state(4, np.uint64)
        self._noise_keys = {"joints": keys[:2]}
        for index, name in enumerate(self._depths):
            if index:
                more = np.random.SeedSequence([seed, 0x5E450, index])
                keys = more.generate_state(4, np.uint64)
            self._noise_keys[f"depth {name}"] = keys[2:]
        return variation

    @property
    def step_count(self) -> int:
        """Control periods since the reset."""
        return self._physics_steps // self.substeps

    @property
    def target(self) -> tuple[float, float]:
        """The last tool target (m) that the robot accepted."""
        return self.firmware.target

    @property
    def unstable(self) -> bool:
        """Whether physics broke down since the reset (MuJoCo then restarts its state)."""
        return any(self.data.warning[kind].number for kind in _BREAKDOWNS)

    def command(self, x: float, y: float) -> bool:
        """Send a tool target (m); False if the robot ignores it (see :class:`Firmware`)."""
        return self.firmware.command(x, y)

    def advance(self, physics_steps: int) -> None:
        """Simulate ``physics_steps`` physics steps."""
        tick, ctrl = self.firmware.tick, self.data.ctrl
        for _ in range(physics_steps):
            ctrl[0], ctrl[1] = tick()
            mujoco.mj_step(self.model, self.data)
        self._physics_steps += physics_steps

    def step(self, x: float, y: float) -> Truth:
        """Send a tool target (m) and simulate one control period."""
        self.command(x, y)
        self.advance(self.substeps)
        return self.truth()

    def _rng(self, stream: str) -> np.random.Generator:
        """The stream's generator for this moment: noise depends on seed and time only."""
        generator = self._generators[stream]
        counter = np.array([0, 0, self._physics_steps, 0], dtype=np.uint64)
        state: dict[str, Any] = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": self._noise_keys[stream]},
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        generator.bit_generator.state = state
        return generator

    def proprioception(self) -> Proprioception:
        """Measured joints and tool."""
        draws = self._rng("joints").standard_normal(4)
        positions = self.data.qpos[:2] + self.noise.joint_position * draws[:2]
        velocities = self.data.qvel[:2] + self.noise.joint_velocity * draws[2:]
        return Proprioception(positions, velocities, self.kinematics.forward(positions))

    def depth(self, camera: str = "") -> DepthImage:
        """Depth image ``(height, width)``, ``uint16`` mm, 0 where nothing was seen.

        Args:
            camera: name of one of the task's; empty: the first.
        """
        name = camera or next(iter(self._depths))
        depth = self._depths[name]
        mujoco.mj_kinematics(self.model, self.data)
        return depth.sense(depth.render(self.data), self.noise.depth, self._rng(f"depth {name}"))

    def colour(self) -> ColourImage:
        """Colour image ``(height, width, 3)``, ``uint8`` RGB."""
        if self._colour is None:
            self._colour = ColourCamera(self.model, self.camera)
            self._colour.place(self.variation.camera_shift, self.variation.camera_rotation)
        mujoco.mj_kinematics(self.model, self.data)
        return self._colour.render(self.data)

    def truth(self) -> Truth:
        """Ground truth of this moment."""
        q = self._block_qpos
        block = self.data.qpos[q : q + 3].copy()
        w, x, y, z = self.data.qpos[q + 3 : q + 7].tolist()
        yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        distance = math.hypot(block[0] - self._goal[0], block[1] - self._goal[1])
        success = distance < self.scene.success_radius and not self.unstable
        tool = self.kinematics.forward(self.data.qpos[:2])
        return Truth(
            seed=self.seed,
            step=self.step_count,
            tool_position=np.array([tool[0], tool[1], self.tool_height]),
            tool_target=np.array([*self.firmware.target, self.tool_height]),
            block_position=block,
            block_yaw=yaw,
            goal_position=self._goal,
            distance=distance,
            success=success,
            done=success or self.unstable or self.step_count >= self.task.episode.max_steps,
        )
