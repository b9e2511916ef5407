"""What is imitated when a policy is re-trained on the merged data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.transitions import Transitions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics

Kind = Literal["successes", "weighted", "all"]
LARGEST_WEIGHT = 20.0
TEMPERATURE = 1.0  # of advantages in units of their spread
BATCH = 1024
STEPS = 2  # times as many optimiser steps as the first imitation: there is more to learn


@dataclass(frozen=True)
class ImitationPlan:
    """Arguments of ``train_imitation``.

    Attributes:
        weights: (T,) of each episode, or None: all alike.
        start: the normaliser's weights at least: actions keep the units that every chain and
            critic of the run is in.
    """

    episodes: Sequence[EpisodeArrays]
    weights: Sequence[Tensor] | None
    start: dict[str, Tensor]


def with_steps(config: TrainConfig, times: int) -> TrainConfig:
    """The configuration with ``times`` as many optimiser steps of imitation."""
    steps = config.imitation.steps * times
    imitation = config.imitation.model_copy(update={"steps": steps})
    return config.model_copy(update={"imitation": imitation})


@torch.no_grad()
def advantage_weights(critics: OfflineCritics, data: Transitions) -> Tensor:
    """exp(A / (T σ_A)) of every recorded step, cut off (AWR, Peng et al. 2019): (S,), CPU."""
    normaliser = critics.policy.normaliser
    parts = []
    for rows in torch.arange(len(data.times), device=data.times.device).split(BATCH):
        parts.append(critics.advantage(data, rows, normaliser.action(data.actions[rows])))
    advantage = torch.cat(parts)
    scaled = advantage / (TEMPERATURE * advantage.std().clamp(min=1e-6))
    return scaled.exp().clamp(max=LARGEST_WEIGHT).cpu()


def imitation_plan(
    kind: Kind,
    episodes: Sequence[EpisodeArrays],
    critics: OfflineCritics,
    transitions: Callable[[Sequence[EpisodeArrays]], Transitions],
    policy: DiffusionPolicy | None = None,
) -> ImitationPlan:
    """The plan of one kind of re-training.

    Args:
        critics: of the episodes; ``weighted`` takes their advantages.
        policy: whose weights it goes on from; None: from scratch, in the units of the critics.
    """
    chosen = [e for e in episodes if kind != "successes" or e.outcome == "success"]
    weights = None
    if kind == "weighted":
        lengths = [len(e) for e in chosen]
        weights = list(advantage_weights(critics, transitions(chosen)).split(lengths))
    state = (policy or critics.policy).state_dict()
    kept = "" if policy else "normaliser."
    start = {name: value.cpu() for name, value in state.items() if name.startswith(kept)}
    return ImitationPlan(chosen, weights, start)
