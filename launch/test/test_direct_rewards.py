"""Rewards in process are those of bags: penalties of a task's file count in demonstrations and in
rollouts alike, step by step, as the reader of bags would give them.
"""

from __future__ import annotations

import numpy as np

from rl100.demonstrations import record_direct
from rl100.push_env import PushEnv
from rl100_contracts.rewards import step_rewards
from rl100_contracts.task import Reward, Task, load_task
from rl100_sim.expert import ExpertNoise


def task_with_penalties() -> Task:
    rules = Reward(success=1.0, step_penalty=0.01, jitter_penalty=0.2)
    return load_task("push").model_copy(update={"reward": rules})


def test_demonstrations_are_rewarded_as_bags_are() -> None:
    task = task_with_penalties()
    for episode in record_direct(task, [0, 1], ExpertNoise.demonstration()):
        wanted = step_rewards(task, episode.actions, episode.outcome == "success")
        np.testing.assert_allclose(episode.rewards, wanted, atol=1e-6)
        assert len(np.unique(episode.rewards.round(6))) > 3  # jitter was seen


def test_chunks_of_a_rollout_are_rewarded_as_bags_are() -> None:
    """Across the border of two chunks too; a new episode has no action before its first."""
    task = task_with_penalties()
    env, noise = PushEnv(task), np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    for seed in (3, 4):
        env.reset(seed=seed)
        rewards, actions = [], []
        for _ in range(3):
            chunk = noise.uniform(low, high).astype(np.float32)
            _, total, terminated, truncated, info = env.step(chunk)
            assert not terminated and not truncated
            rewards.append(info["rewards"])
            actions.append(info["actions"])
            assert np.isclose(total, info["rewards"].sum())
        wanted = step_rewards(task, np.concatenate(actions), False)
        np.testing.assert_allclose(np.concatenate(rewards), wanted, atol=1e-6)
