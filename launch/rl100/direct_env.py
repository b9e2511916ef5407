"""The simulated task without ROS: the same world, perception, limits and observation, in process.

Composed of the very cores that the nodes wrap, so that for a seed and a sequence of actions it
gives the same tensors as the lockstep ROS graph. For benchmarks and learning, not for deployment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics
from rl100_contracts.images import view_of
from rl100_contracts.motion import Shaped
from rl100_contracts.observation import Observation, ObservationAssembler
from rl100_contracts.rewards import step_rewards
from rl100_contracts.task import NANOSECONDS, Task
from rl100_perception.pipeline import CloudPipeline
from rl100_perception.view import View
from rl100_sim.episode import DirectEpisode
from rl100_sim.world import PushWorld, Truth

FIRST_STAMP_NS = NANOSECONDS


@dataclass(frozen=True)
class Step:
    """What one control step gave.

    Attributes:
        reward: of the task: success in the step that solves it, less the penalties of each.
        terminated: solved.
        truncated: the step limit was reached first.
        shaped: the action after limits.
        truth: ground truth, never for the policy.
    """

    reward: float
    terminated: bool
    truncated: bool
    shaped: Shaped
    truth: Truth


class DirectEnv:
    """One simulated episode at a time; call ``reset`` first.

    Sensors are functions of the seed and the time, so a frame that nobody looks at may be left
    out (``sense=False``) without changing any other: it saves the image, which is most of a
    step's time.
    """

    def __init__(self, task: Task, world: PushWorld | None = None) -> None:
        self.task = task
        self.world = world or PushWorld(task)
        self._pipeline = None if task.observation.cloud is None else CloudPipeline(task)
        self._intrinsics = {
            name: Intrinsics(c.width, c.height, c.fx, c.fy, c.cx, c.cy)
            for name, c in self.world.cameras.items()
        }
        self._episode = DirectEpisode(self.world)
        self._assembler = ObservationAssembler(task)
        self._stamp_ns = FIRST_STAMP_NS
        self._executed: NDArray[np.float32] | None = None

    @property
    def target(self) -> NDArray[np.float64]:
        """Last commanded target, float64 (d,), m."""
        return self._episode.target

    @property
    def truth(self) -> Truth:
        """Ground truth of this moment, never for the policy."""
        return self._episode.truth

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        self._episode.reset(seed)
        self._assembler.clear()
        self._executed = None
        self._stamp_ns = FIRST_STAMP_NS
        self._sense()
        return self.observe()

    def step(self, action: NDArray[np.floating], *, sense: bool = True) -> Step:
        """Execute one action (d,), task units, within the task's limits, and look afterwards."""
        shaped = self._episode.act(action)
        before = shaped.action if self._executed is None else self._executed
        self._executed = shaped.action
        truth = self._episode.truth
        self._stamp_ns += self.task.control.period_ns
        if sense:
            self._sense()
        actions = np.stack([before, shaped.action])
        return Step(
            float(step_rewards(self.task, actions, truth.success)[-1]),
            truth.success,
            truth.done and not truth.success,
            shaped,
            truth,
        )

    def observe(self) -> Observation:
        """The observation of this moment; the last step must have looked."""
        return self._assembler.observe(self._stamp_ns)

    def newest(self) -> Observation:
        """The observation at the newest frame, which may be older than this moment."""
        stamp = self._assembler.latest_complete()
        assert stamp is not None  # the reset has looked
        return self._assembler.observe(stamp)

    def _sense(self) -> None:
        stamp, measured = self._stamp_ns, self.world.proprioception()
        self._assembler.add("joint_states", stamp, measured.joint_positions.astype(np.float32))
        self._assembler.add("tool_pose", stamp, measured.tool_xy.astype(np.float32))
        image = self.task.observation.image
        if image is not None:
            self._assembler.add(image.stream, stamp, view_of(self.world.colour(), image))
        if self._pipeline is not None:
            views = {}
            for name, intrinsics in self._intrinsics.items():
                views[name] = View(self.world.depth(name), intrinsics)
            points = self._pipeline.process(views).points
            self._assembler.add(self.task.cloud.stream, stamp, points)
