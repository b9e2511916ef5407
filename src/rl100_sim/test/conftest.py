"""Shared helpers of the simulator's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rl100_contracts.task import Task, load_task
from rl100_sim.episode import DirectEpisode, expert_action
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
def play() -> Callable[[PushWorld, PushExpert, int], Truth]:
    """Play one episode with the expert, within the task's limits; returns its last truth."""

    def run(world: PushWorld, expert: PushExpert, seed: int) -> Truth:
        episode = DirectEpisode(world)
        episode.reset(seed)
        expert.reset(seed)
        while not episode.truth.done:
            episode.act(expert_action(expert, episode.truth))
        return episode.truth

    return run
