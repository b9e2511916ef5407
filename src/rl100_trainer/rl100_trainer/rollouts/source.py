"""Where the learner gets experience from, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.trajectory import Trajectory

Sampler = Literal["one_step", "k_step"]


@dataclass(frozen=True)
class Outcomes:
    """Success (n,) bool and executed control steps (n,) of one episode for each seed."""

    success: NDArray[np.bool_]
    steps: NDArray[np.int64]

    @property
    def rate(self) -> float:
        """Part of the episodes that succeeded."""
        return float(self.success.mean())


OnEpisodes = Callable[[int], None]


def ignore_episodes(_: int) -> None:
    """An ``OnEpisodes`` for those who don't look."""


class RolloutSource(Protocol):
    """Runs a policy and gives what happened: the ROS graph with its bags, or worlds in process.

    A seed stands for a start state; the same seeds give two policies the same starts. Where starts
    cannot be chosen (a real robot), a seed only numbers an episode.
    """

    def evaluate(self, policy: DiffusionPolicy, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        """One episode for each seed, as deployed: no exploration noise."""

    def collect(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        on_episodes: OnEpisodes = ignore_episodes,
        *,
        explore: bool = True,
    ) -> list[EpisodeArrays]:
        """One episode of the K-step policy for each seed, every step recorded.

        Args:
            on_episodes: told how many have ended whenever some have; may raise to stop.
            explore: with the stochastic chain; False: as deployed.
        """


class OnPolicySource(RolloutSource, Protocol):
    """A source that can also follow a policy decision by decision, and be resumed."""

    env_steps: int

    def trajectories(
        self, policy: DiffusionPolicy, environments: int, decisions: int
    ) -> list[Trajectory]:
        """About ``environments * decisions`` on-policy decisions with the stochastic chain."""

    def state(self) -> dict[str, Tensor]:
        """Random numbers and counters, for checkpoints."""

    def set_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint; raises KeyError or RuntimeError when it is another's."""


@dataclass(frozen=True)
class Decisions:
    """A batch of decisions.

    Attributes:
        actions: (B, n_c, d), task units.
        chains: (B, K + 1, h, d), normalised; empty for the one-step policy.
        log_probs: (B, K), nats.
    """

    actions: NDArray[np.float32]
    chains: NDArray[np.float32]
    log_probs: NDArray[np.float32]


def standard_normal(
    shape: Sequence[int], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Noise drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(tuple(shape), generator=generator).to(device)


@torch.no_grad()
def decide(
    policy: DiffusionPolicy,
    observed: Sequence[NDArray[Any]],
    generator: torch.Generator,
    *,
    sampler: Sampler,
    stochastic: bool,
) -> Decisions:
    """Decide on a batch of observations: states (B, n_o, d_s), clouds (B, n_o, N, 3) and, where
    the policy sees them, images (B, n_o, H, W, 3), uint8."""
    device = policy.normaliser.state_mean.device
    seen = [torch.from_numpy(array).to(device) for array in observed]
    shape = (len(seen[0]), policy.horizon, policy.spec.action_dim)
    noise = standard_normal(shape, generator, device)
    if sampler == "one_step":
        actions = policy.act(seen[0], seen[1], noise, *seen[2:])
        nothing = np.zeros((len(seen[0]), 0), dtype=np.float32)
        return Decisions(actions.cpu().numpy(), nothing, nothing)
    steps = (policy.schedule.steps, *shape)
    step_noise = standard_normal(steps, generator, device) if stochastic else None
    chain = policy.rollout(policy.condition(*seen), noise, step_noise)
    return Decisions(
        policy.executed(chain.samples[-1]).cpu().numpy(),
        chain.samples.transpose(0, 1).cpu().numpy(),
        chain.log_probs.transpose(0, 1).cpu().numpy(),
    )
