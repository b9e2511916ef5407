"""Rewards of the steps of an episode, from its verdict and the task's rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.task import Task

FloatArray = NDArray[np.float32]


def step_rewards(task: Task, actions: FloatArray, success: bool) -> FloatArray:
    """Reward of each step (T,): the verdict at the last one, less the penalties of every one.

    The jitter penalty is ``jitter_penalty`` times the mean squared change from one action to the
    next, in units of the largest action (paper, section on rewards).

    Args:
        actions: (T, d), task units.
    """
    rules = task.reward
    rewards = np.zeros(len(actions), dtype=np.float32)
    rewards -= rules.step_penalty
    if rules.jitter_penalty > 0.0:
        largest = np.maximum(np.abs(task.action.low), np.abs(task.action.high))
        change = np.diff(actions, axis=0, prepend=actions[:1]) / largest
        rewards -= rules.jitter_penalty * np.square(change).mean(axis=1, dtype=np.float32)
    if success and len(rewards):
        rewards[-1] += rules.success
    return rewards
