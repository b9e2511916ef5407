"""Stepping the push world without ROS, through the same limits as the command gateway."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.motion import CommandShaper, Shaped
from rl100_sim.expert import PushExpert
from rl100_sim.world import PushWorld, Truth

FloatArray = NDArray[np.float64]


class DirectEpisode:
    """One world, driven by actions in the task's units instead of tool targets.

    After :meth:`reset` and after each :meth:`act`, ``truth`` is the ground truth and ``target``
    the last commanded tool target (m).
    """

    def __init__(self, world: PushWorld) -> None:
        self.world = world
        self._shaper = CommandShaper(world.task)
        self._period_s = 1.0 / world.task.control.rate_hz
        self.target: FloatArray = np.zeros(2)
        self.truth: Truth = world.truth()

    def reset(self, seed: int) -> Truth:
        """Start the episode of ``seed``; the target starts where the tool is measured."""
        self.world.reset(seed)
        position = self.world.proprioception().tool_xy
        self._shaper.sync(position)
        self.target = position
        self.truth = self.world.truth()
        return self.truth

    def act(self, action: NDArray[np.floating]) -> Shaped:
        """Execute one action ``(2,)`` (task units) for one control period."""
        shaped = self._shaper.shape(action, self._period_s)
        self.target = shaped.target
        self.truth = self.world.step(float(shaped.target[0]), float(shaped.target[1]))
        return shaped


def expert_action(expert: PushExpert, truth: Truth) -> FloatArray:
    """The expert's action ``(2,)`` (m per step) for a ground truth."""
    return expert.act(
        tool_xy=truth.tool_position[:2],
        target_xy=truth.tool_target[:2],
        block_xy=truth.block_position[:2],
        block_yaw=truth.block_yaw,
        goal_xy=truth.goal_position[:2],
    )
