"""What is imitated, and from where, when a policy is re-trained on the merged data."""

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
FINE_TUNE_RATE = 0.3  # of the learning rate and of the steps of a training from scratch


@dataclass(frozen=True)
class ImitationPlan:
    """Arguments of ``train_imitation``.

    Attributes:
        weights: (T,) of each episode, or None: all alike.
        start: weights to go on from; from scratch only the normaliser's.
    """

    config: TrainConfig
    episodes: Sequence[EpisodeArrays]
    weights: Sequence[Tensor] | None
    start: dict[str, Tensor]


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
    config: TrainConfig,
    kind: Kind,
    episodes: Sequence[EpisodeArrays],
    policy: DiffusionPolicy,
    critics: OfflineCritics,
    transitions: Callable[[Sequence[EpisodeArrays]], Transitions],
    *,
    scratch: bool | None = None,
) -> ImitationPlan:
    """The plan of one kind of re-training.

    ``all`` (paper) and ``successes`` begin from scratch; ``weighted`` goes on from the policy,
    because the critics can't tell what a policy has learnt beyond the data. ``scratch`` overrides.
    """
    chosen = [e for e in episodes if kind != "successes" or e.outcome == "success"]
    weights = None
    if kind == "weighted":
        lengths = [len(e) for e in chosen]
        weights = list(advantage_weights(critics, transitions(chosen)).split(lengths))
    start = {name: value.cpu() for name, value in policy.state_dict().items()}
    if scratch if scratch is not None else kind != "weighted":
        # Actions keep the units that every chain and critic of the run is in.
        start = {name: value for name, value in start.items() if name.startswith("normaliser.")}
        return ImitationPlan(config, chosen, weights, start)
    il, distill = config.imitation, config.distill
    gentle = config.model_copy(
        update={
            "imitation": il.model_copy(
                update={
                    "steps": max(1, int(FINE_TUNE_RATE * il.steps)),
                    "learning_rate": FINE_TUNE_RATE * il.learning_rate,
                }
            ),
            "distill": distill.model_copy(
                update={"steps": max(1, int(FINE_TUNE_RATE * distill.steps))}
            ),
        }
    )
    return ImitationPlan(gentle, chosen, weights, start)
