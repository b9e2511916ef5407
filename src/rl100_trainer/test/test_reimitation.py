"""Re-training by imitation: which episodes are taken, with which weight of each step, in the units
of the policy that it replaces.
"""

from __future__ import annotations

import math

import pytest
import torch

from rl100_trainer.config import load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics
from rl100_trainer.stages.reimitation import (
    LARGEST_WEIGHT,
    ImitationPlan,
    Kind,
    advantage_weights,
    imitation_plan,
)
from rl100_trainer.testing import MAX_STEPS, REACH_SPEC, reach_demonstrations

CONFIG = load_config(None, ["model.widths=[32,32]", "model.features=16"])


class KnownAdvantages(OfflineCritics):
    """Critics whose advantage of a recorded step is told beforehand."""

    known: torch.Tensor

    def advantage(
        self, data: Transitions, rows: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        # What is judged are the recorded actions, normalised as the policy's own are.
        recorded = self.policy.normaliser.action(data.actions[rows])
        torch.testing.assert_close(actions, recorded)
        return self.known[rows]


@pytest.fixture
def episodes() -> list[EpisodeArrays]:
    made = reach_demonstrations(range(12))
    assert {e.outcome for e in made} == {"success", "failure"}
    return made


def transitions(episodes: list[EpisodeArrays]) -> Transitions:
    return make_transitions(episodes, REACH_SPEC, CONFIG.critic.discount, MAX_STEPS)


def planned(
    kind: Kind, episodes: list[EpisodeArrays], known: torch.Tensor
) -> tuple[ImitationPlan, DiffusionPolicy]:
    torch.manual_seed(0)
    policy = DiffusionPolicy(REACH_SPEC, CONFIG)
    policy.normaliser.action_scale.fill_(2.0)
    critics = KnownAdvantages(policy, CONFIG.critic, 0, CONFIG.augmentation)
    critics.known = known
    return imitation_plan(kind, episodes, critics, transitions), policy


def test_steps_weigh_by_their_advantage(episodes: list[EpisodeArrays]) -> None:
    count = sum(len(e) for e in episodes)
    advantages = torch.randn(count, generator=torch.Generator().manual_seed(1)) - 3.0
    advantages[5] = 60.0
    plan, _ = planned("weighted", episodes, advantages)
    assert list(plan.episodes) == episodes and plan.weights is not None
    assert [len(w) for w in plan.weights] == [len(e) for e in episodes]
    weights, spread = torch.cat(list(plan.weights)), float(advantages.std())
    assert float(weights[5]) == LARGEST_WEIGHT < math.exp(60.0 / spread)
    others = torch.arange(count) != 5
    torch.testing.assert_close(weights[others], (advantages[others] / spread).exp())


def test_successes_and_all_weigh_alike(episodes: list[EpisodeArrays]) -> None:
    known = torch.zeros(sum(len(e) for e in episodes))
    plan, _ = planned("successes", episodes, known)
    assert plan.weights is None
    assert list(plan.episodes) == [e for e in episodes if e.outcome == "success"]
    plan, _ = planned("all", episodes, known)
    assert plan.weights is None and list(plan.episodes) == episodes


@pytest.mark.parametrize("kind", ["all", "successes", "weighted"])
def test_only_the_units_are_kept(episodes: list[EpisodeArrays], kind: Kind) -> None:
    plan, policy = planned(kind, episodes, torch.zeros(sum(len(e) for e in episodes)))
    state = policy.state_dict()
    assert set(plan.start) == {name for name in state if name.startswith("normaliser.")}
    assert float(plan.start["normaliser.action_scale"].min()) == 2.0


def test_it_can_go_on_from_a_policy(episodes: list[EpisodeArrays]) -> None:
    _, policy = planned("all", episodes, torch.zeros(0))
    critics = OfflineCritics(policy, CONFIG.critic, 0, CONFIG.augmentation)
    plan = imitation_plan("successes", episodes, critics, transitions, policy)
    assert plan.start.keys() == policy.state_dict().keys()
    for name, value in policy.state_dict().items():
        assert torch.equal(plan.start[name], value)


def test_weights_rise_with_the_advantage() -> None:
    policy = DiffusionPolicy(REACH_SPEC, CONFIG)
    critics = OfflineCritics(policy, CONFIG.critic, 0)
    data = transitions(reach_demonstrations(range(4)))
    ranks = torch.linspace(-3.0, 9.0, len(data.times))
    critics.advantage = lambda data, rows, actions: ranks[rows]  # type: ignore[method-assign]
    weights = advantage_weights(critics, data)
    assert (weights.diff() >= 0).all() and float(weights.max()) <= LARGEST_WEIGHT
    expected = (ranks / ranks.std()).exp().clamp(max=LARGEST_WEIGHT)
    torch.testing.assert_close(weights, expected)
