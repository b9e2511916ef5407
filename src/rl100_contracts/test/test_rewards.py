"""Rewards of an episode's steps: the verdict at the last one, less what each step and each change
of the action costs (jitter), equal to a sum written out by hand.
"""

from __future__ import annotations

import numpy as np
import pytest

from rl100_contracts.rewards import step_rewards
from rl100_contracts.task import Reward, Task


def with_rules(task: Task, **rules: float) -> Task:
    return task.model_copy(update={"reward": Reward(**rules)})


def test_without_penalties_only_the_verdict_counts(task: Task) -> None:
    actions = np.random.default_rng(0).normal(size=(5, task.action.dim)).astype(np.float32)
    assert step_rewards(task, actions, False).tolist() == [0.0] * 5
    assert step_rewards(task, actions, True).tolist() == [0.0] * 4 + [task.reward.success]


def test_penalties_are_those_of_a_loop(task: Task) -> None:
    ruled = with_rules(task, success=2.0, step_penalty=0.01, jitter_penalty=0.3)
    actions = np.random.default_rng(1).normal(size=(6, task.action.dim)).astype(np.float32)
    wanted = []
    for index, action in enumerate(actions):
        before = actions[max(0, index - 1)]  # nothing came before the first one: no change
        squares = []
        for one, other, low, high in zip(
            action, before, task.action.low, task.action.high, strict=True
        ):
            squares.append(((float(one) - float(other)) / max(abs(low), abs(high))) ** 2)
        wanted.append(-0.01 - 0.3 * sum(squares) / len(squares))
    wanted[-1] += 2.0
    assert step_rewards(ruled, actions, True) == pytest.approx(wanted, rel=1e-5)
