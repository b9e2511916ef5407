"""Noise of decisions: a function of the seed and the observation, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rl100_contracts.task import Task
from rl100_policy_node.runtime import DecisionNoise, PolicyRuntime
from rl100_policy_node.testing import flat_observation

MakeBundle = Callable[..., Path]


def test_noise_depends_on_seed_and_observation(make_bundle: MakeBundle, task: Task) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    first, second = flat_observation(task), flat_observation(task, 0.2)
    base = runtime.one_step(first, DecisionNoise(0).of(first))
    assert (base == runtime.one_step(first, DecisionNoise(0).of(first))).all()
    assert (base != runtime.one_step(first, DecisionNoise(1).of(first))).all()
    assert (base != runtime.one_step(second, DecisionNoise(0).of(second))).all()


def test_noise_does_not_depend_on_what_was_decided_before(task: Task) -> None:
    """One generator serves all decisions: nothing of the last one may be left in it."""
    noise = DecisionNoise(5)
    for value, count in ((0.1, 3), (0.2, 7), (0.1, 8)):
        observation = flat_observation(task, value)
        drawn = noise.of(observation).standard_normal(count, dtype=np.float32)
        key = np.array([5, observation.digest()], dtype=np.uint64)
        alone = np.random.Generator(np.random.Philox(key=key))
        assert (drawn == alone.standard_normal(count, dtype=np.float32)).all()
