"""Shared helpers of the simulator's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rl100_contracts.task import Task, load_task
from rl100_sim.expert import PushExpert
from rl100_sim.world import PushWorld, Truth


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task("push")


@pytest.fixture(scope="session")
def world(task: Task) -> PushWorld:
    """One compiled world for all tests: each of them resets it first."""
    return PushWorld(task)


@pytest.fixture(scope="session")
def play(task: Task) -> Callable[[PushWorld, PushExpert, int], Truth]:
    """Play one episode with the expert, within the task's limits; returns its last truth."""
    low, high = np.array(task.limits.position_low), np.array(task.limits.position_high)

    def run(world: PushWorld, expert: PushExpert, seed: int) -> Truth:
        world.reset(seed)
        expert.reset(seed)
        truth = world.truth()
        target = world.proprioception().tool_xy
        while not truth.done:
            action = expert.act(
                tool_xy=truth.tool_position[:2],
                target_xy=target,
                block_xy=truth.block_position[:2],
                block_yaw=truth.block_yaw,
                goal_xy=truth.goal_position[:2],
            )
            target = np.clip(target + action, low, high)
            truth = world.step(float(target[0]), float(target[1]))
        return truth

    return run
