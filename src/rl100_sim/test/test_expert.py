"""Pins the scripted teleoperator: it solves the task, and its noise is what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rl100_sim.expert import ExpertNoise, PushExpert
from rl100_sim.world import PushWorld, Truth

Play = Callable[[PushWorld, PushExpert, int], Truth]


def test_without_noise_the_expert_solves_every_start(world: PushWorld, play: Play) -> None:
    ends = [play(world, PushExpert(), seed) for seed in range(40)]
    assert [t.seed for t in ends if not t.success] == []
    assert np.mean([t.step for t in ends]) < 45


@pytest.mark.slow
def test_without_noise_the_expert_solves_99_percent_of_500(world: PushWorld, play: Play) -> None:
    expert = PushExpert()
    assert sum(play(world, expert, seed).success for seed in range(1000, 1500)) >= 495


def test_the_default_noise_makes_demonstrations_wander_and_fail_at_times(
    world: PushWorld, play: Play
) -> None:
    noisy = [play(world, PushExpert(noise=ExpertNoise.demonstration()), s) for s in range(100)]
    clean = [play(world, PushExpert(), seed) for seed in range(20)]
    assert 0.45 < np.mean([t.success for t in noisy]) < 0.8
    assert np.mean([t.step for t in noisy]) > 1.4 * np.mean([t.step for t in clean])


STILL: dict[str, Any] = {
    "tool_xy": np.array([-0.2, 0.0]),
    "block_xy": np.array([-0.1, 0.0]),
    "block_yaw": 0.0,
    "goal_xy": np.array([0.18, 0.0]),
}


def _actions(expert: PushExpert, steps: int) -> np.ndarray:
    """Actions ``(steps, 2)`` with the target already where the expert wants it: noise alone."""
    desired = PushExpert(max_step=100.0).act(target_xy=np.zeros(2), **STILL)
    return np.array([expert.act(target_xy=desired, **STILL) for _ in range(steps)])


def test_noise_is_seeded_and_has_the_stated_size_and_correlation() -> None:
    noise = ExpertNoise(std=0.2, correlation=0.8)
    expert = PushExpert(noise=noise)
    expert.reset(1)
    first = _actions(expert, 4000)
    expert.reset(1)
    assert np.array_equal(_actions(expert, 50), first[:50])
    expert.reset(2)
    assert not np.array_equal(_actions(expert, 50), first[:50])
    assert first.std() == pytest.approx(0.2 * 0.03, rel=0.1)
    for axis in range(2):
        lagged = np.corrcoef(first[1:, axis], first[:-1, axis])[0, 1]
        assert lagged == pytest.approx(0.8, abs=0.05)


def test_actions_never_leave_the_largest_step() -> None:
    expert = PushExpert(noise=ExpertNoise(std=3.0))
    assert np.abs(_actions(expert, 200)).max() == pytest.approx(0.03)
