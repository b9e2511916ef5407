"""Demonstrations of the scripted teleoperator in process: the rows that its bags would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rl100.push_env import PushEnv
from rl100_contracts.task import Task
from rl100_sim.episode import expert_action
from rl100_sim.expert import ExpertNoise, PushExpert
from rl100_trainer.data.dataset import (
    MODE_TELEOP,
    EpisodeArrays,
    simulated_episode,
    stack_observations,
)


def record_direct(
    task: Task,
    seeds: Sequence[int],
    noise: ExpertNoise,
    on_episode: Callable[[int], None] = lambda _: None,
) -> list[EpisodeArrays]:
    """One demonstration for each seed, successes and failures alike."""
    env = PushEnv(task)
    direct = env.direct
    expert = PushExpert(float(task.action.high[0]), noise=noise)
    chunk = task.control.n_action_steps
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        expert.reset(seed)
        observations, actions, rewards = [], [], []
        ended = False
        while not ended:
            observations.append(direct.observe())
            step = direct.step(expert_action(expert, direct.truth))
            actions.append(step.shaped.action)
            rewards.append(step.reward)
            ended = step.terminated or step.truncated
        episodes.append(
            simulated_episode(
                f"demonstration_{seed}",
                **stack_observations(observations),
                actions=np.stack(actions),
                rewards=np.asarray(rewards, dtype=np.float32),
                decision=np.arange(len(actions)) % chunk == 0,
                period_ns=task.control.period_ns,
                mode=MODE_TELEOP,
                success=step.terminated,
                source="scripted",
            )
        )
        on_episode(len(episodes))
    return episodes
