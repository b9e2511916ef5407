"""The simulated task without ROS: the same world, perception, limits and observation, in process.

Composed of the very cores that the nodes wrap, so that for a seed and a sequence of actions it
gives the same tensors as the lockstep ROS graph. For benchmarks and learning, not for deployment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics
from rl100_contracts.motion import Shaped
from rl100_contracts.observation import Observation, ObservationAssembler
from rl100_contracts.task import NANOSECONDS, Task
from rl100_perception.pipeline import CloudPipeline
from rl100_sim.episode import DirectEpisode
from rl100_sim.world import PushWorld, Truth

FIRST_STAMP_NS = NANOSECONDS


@dataclass(frozen=True)
class Step:
    """What one control step gave.

    Attributes:
        observation: after the step.
        reward: the task's success reward in the step that solves it, else 0.
        terminated: solved.
        truncated: the step limit was reached first.
        shaped: the action after limits.
        truth: ground truth, never for the policy.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    shaped: Shaped
    truth: Truth


class DirectEnv:
    """One simulated episode at a time; call ``reset`` first."""

    def __init__(self, task: Task, world: PushWorld | None = None) -> None:
        self.task = task
        self.world = world or PushWorld(task)
        self._pipeline = CloudPipeline(task)
        camera = self.world.camera
        self._intrinsics = Intrinsics(
            camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy
        )
        self._episode = DirectEpisode(self.world)
        self._assembler = ObservationAssembler(task)
        self._stamp_ns = FIRST_STAMP_NS

    @property
    def target(self) -> NDArray[np.float64]:
        """Last commanded target, float64 (d,), m."""
        return self._episode.target

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        self._episode.reset(seed)
        self._assembler.clear()
        self._stamp_ns = FIRST_STAMP_NS
        return self._observe()

    def step(self, action: NDArray[np.floating]) -> Step:
        """Execute one action (d,), task units, within the task's limits."""
        shaped = self._episode.act(action)
        truth = self._episode.truth
        self._stamp_ns += self.task.control.period_ns
        return Step(
            self._observe(),
            self.task.reward.success if truth.success else 0.0,
            truth.success,
            truth.done and not truth.success,
            shaped,
            truth,
        )

    def _observe(self) -> Observation:
        stamp, measured = self._stamp_ns, self.world.proprioception()
        self._assembler.add("joint_states", stamp, measured.joint_positions.astype(np.float32))
        self._assembler.add("tool_pose", stamp, measured.tool_xy.astype(np.float32))
        scale = np.float32(self.task.camera.depth_scale)
        depth = self.world.depth().astype(np.float32) * scale
        cloud = self._pipeline.process(depth, self._intrinsics).points
        self._assembler.add(self.task.observation.cloud.stream, stamp, cloud)
        return self._assembler.observe(stamp)
