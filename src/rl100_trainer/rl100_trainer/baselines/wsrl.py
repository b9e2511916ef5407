"""Baseline WSRL: warm-started SAC with recalibrated critics, on action chunks.

Zhou et al. 2025, arXiv 2412.07762; [W]: their code, zhouzypaul/wsrl at 891ee35. Kept: an ensemble
of critics with LayerNorm (REDQ), a warm-up with the frozen policy, no offline data afterwards, many
critic updates for one of the actor, no entropy in the target. Different, because a diffusion policy
has no density that SAC could use: the actor is the frozen cloned policy plus a tanh-Gaussian
residual, whose initial noise explores in the warm-up; the critics start by evaluating that policy
on the offline data (theirs come from Cal-QL), and they alone learn from the warm-up (theirs wait).
A chunk is one action, discounted by γ^n.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl100_trainer.baselines.replay import Batch, Observed, ReplayBuffer
from rl100_trainer.baselines.residual import ResidualPolicy
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.transitions import Transitions
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.normaliser import Normaliser
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.iql import polyak, td_target
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import decide, standard_normal
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.spec import PolicySpec

WARMUP_STEPS = 5_000  # [W] --warmup_steps
UTD = 4.0  # [W] --utd; critic updates per decision, which is their step
CRITIC_UPDATES = 4  # [W] the actor learns once in --utd critic updates
BATCH = 256  # [W] --batch_size 1024, split over the --utd updates; the actor takes the last part
POLYAK = 0.005  # [W] soft_target_update_rate
CRITIC_RATE, ACTOR_RATE = 3e-4, 1e-4  # [W] sac_config
CRITICS, CRITIC_SUBSET = 2, 2  # [W] 10 and 2; here each has a cloud encoder, and ten cost too much
CAPACITY = 200_000  # observations; [W] 2e6, much smaller ones
# [W] begin at 1, with rewards times 10 and Cal-QL's pre-training to adapt it. With a success worth
# 1 in all, an entropy bonus of several nats at that price drowns it.
TEMPERATURE, TEMPERATURE_RATE = 0.01, 3e-4
LARGEST_GRADIENT = 1.0
ROUND_DECISIONS = 4  # of each world between two updates
EVALUATE_EVERY = 20_000  # [W] --eval_interval, control steps
EVALUATION_SEEDS = range(100)

OnRound = Callable[[int, dict[str, float]], None]


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Its gradient lowers the temperature while the entropy -E[log_prob] is above the target."""
    return log_temperature.exp() * (-log_prob.detach() - target_entropy).mean()


class CriticEnsemble(nn.Module):
    """Independent Q networks with LayerNorm (REDQ, Chen et al. 2021)."""

    def __init__(self, spec: PolicySpec, normaliser: Normaliser, count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            Critic(spec, normaliser, with_action=True) for _ in range(count)
        )

    def forward(
        self, observed: Observed, actions: Tensor, chosen: Sequence[int] | None = None
    ) -> Tensor:
        """Values (M, B) of all members or of the ``chosen`` ones; actions normalised."""
        members = range(len(self.members)) if chosen is None else chosen
        seen = observed.states, observed.clouds, observed.images, observed.times, actions
        return torch.stack([self.members[i](*seen) for i in members])


class WsrlLearner:
    """Critics, residual actor and temperature; where experience comes from is not its business.

    Args:
        policy: the cloned policy; not changed.
        critics: size of the ensemble, at least ``CRITIC_SUBSET``.
    """

    def __init__(
        self, policy: DiffusionPolicy, config: TrainConfig, seed: int, critics: int = CRITICS
    ) -> None:
        self.policy = ResidualPolicy(policy, config, seed)
        spec, self.device = policy.spec, policy.normaliser.state_mean.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critics = CriticEnsemble(spec, self.policy.normaliser, critics).to(self.device)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.target_entropy = -float(spec.n_action_steps * spec.action_dim)  # Haarnoja et al. 2018
        start = torch.tensor(math.log(TEMPERATURE), device=self.device)
        self.log_temperature = nn.Parameter(start)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=CRITIC_RATE)
        self.actor_optimizer = torch.optim.Adam(self.policy.actor.parameters(), lr=ACTOR_RATE)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], lr=TEMPERATURE_RATE)
        self.generator = torch.Generator().manual_seed(seed)

    def act(self, observed: Sequence[NDArray[Any]], *, stochastic: bool) -> NDArray[np.float32]:
        """Chunks (B, n_c, d), task units, for observations; see ``decide``."""
        made = decide(
            self.policy, observed, self.generator, sampler="k_step", stochastic=stochastic
        )
        return made.actions

    def update(
        self, buffer: ReplayBuffer, critic_updates: int = CRITIC_UPDATES, *, critic_only: bool
    ) -> dict[str, float]:
        """Critic updates, then (unless ``critic_only``) one of actor and temperature; logs."""
        losses = []
        for _ in range(critic_updates):
            batch = buffer.sample(BATCH, self.generator)
            q = self.critics(batch.now, batch.actions)
            loss = (q - self.targets(batch)).square().mean(dim=1).sum()
            self._descend(self.critic_optimizer, loss)
            polyak(self.target, self.critics, POLYAK)
            losses.append(float(loss.detach()))
        logs = {"critic_loss": float(np.mean(losses)), "q": float(q.detach().mean())}
        return logs if critic_only else logs | self._actor_update(batch.now)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """R + γ^n min over a random subset of the target critics at the actor's action: (B,)."""
        actions, _ = self._sampled(batch.then)
        order = torch.randperm(len(self.target.members), generator=self.generator)
        least = self.target(batch.then, actions, order[:CRITIC_SUBSET].tolist()).amin(dim=0)
        return td_target(batch.rewards, batch.discounts, least)

    def _sampled(self, observed: Observed) -> tuple[Tensor, Tensor]:
        noise = standard_normal(observed.base.shape, self.generator, self.device)
        return self.policy.correct(observed.condition, observed.base, noise)

    def _actor_update(self, observed: Observed) -> dict[str, float]:
        actions, log_prob = self._sampled(observed)
        temperature = self.log_temperature.detach().exp()
        self.critics.requires_grad_(False)
        least = self.critics(observed, actions).amin(dim=0)  # [W] over all members
        loss = (temperature * log_prob - least).mean()
        self._descend(self.actor_optimizer, loss)
        self.critics.requires_grad_(True)
        penalty = temperature_loss(self.log_temperature, log_prob, self.target_entropy)
        self._descend(self.temperature_optimizer, penalty)
        correction = (actions - observed.base).detach().square().mean().sqrt()
        return {
            "actor_loss": float(loss.detach()),
            "entropy": -float(log_prob.detach().mean()),
            "temperature": float(temperature),
            "correction": float(correction),
        }

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], LARGEST_GRADIENT)
        optimizer.step()

    def warm_start(self, data: Transitions, steps: int) -> dict[str, float]:
        """Let the critics evaluate the cloned policy on offline data; returns the last logs."""
        buffer = ReplayBuffer(self.policy, len(data.times))
        buffer.add_transitions(data, self.generator)
        return self.update(buffer, steps, critic_only=True)


def finetune(
    pool: EnvironmentPool,
    policy: DiffusionPolicy,
    data: Transitions,
    config: TrainConfig,
    env_steps: int,
    on_round: OnRound,
    *,
    max_steps: int,
    warmup_steps: int = WARMUP_STEPS,
    utd: float = UTD,
    evaluate_every: int = EVALUATE_EVERY,
    seeds: Sequence[int] = EVALUATION_SEEDS,
) -> tuple[ResidualPolicy, list[tuple[int, float]]]:
    """Warm start, recalibration and fine-tuning of ``policy`` (a copy of it) for ``env_steps``.

    Args:
        data: offline transitions; the critics' first ``config.critic.steps`` updates use them.
        env_steps: control steps of all worlds together, the warm-up's among them.
        on_round: called after each round with the control steps so far and the logs.
        max_steps: control steps after which an episode times out.
        warmup_steps: control steps of the frozen policy with which critics are recalibrated.
        utd: critic updates per decision.
        evaluate_every: control steps between two points of the curve.
        seeds: start states of an evaluation.

    Returns:
        The corrected policy, and a curve of control steps and part of successful episodes: before,
        meanwhile and at the end.

    Raises:
        ContractError: a world fails.
    """
    seed, discount = config.run.seed, config.critic.discount
    source = VectorSource(pool, max_steps=max_steps, period_ns=1, discount=discount, seed=seed)
    learner = WsrlLearner(policy, config, seed)
    curve = [(0, source.evaluate(learner.policy, "k_step", seeds).rate)]
    on_round(0, {**learner.warm_start(data, config.critic.steps), "success": curve[0][1]})
    buffer = ReplayBuffer(learner.policy, CAPACITY)
    owed = 0.0
    while source.env_steps < env_steps:
        recalibrated = source.env_steps >= warmup_steps
        runs = source.trajectories(learner.policy, len(pool), ROUND_DECISIONS)
        buffer.add_runs(runs, discount, learner.generator)
        owed += utd * sum(len(run) for run in runs)
        logs: dict[str, float] = {}
        if source.env_steps >= min(warmup_steps, env_steps):
            # The end of the warm-up pays all its updates at once, to the critics alone.
            for _ in range(int(owed / CRITIC_UPDATES)):
                logs = learner.update(buffer, critic_only=not recalibrated)
            owed %= CRITIC_UPDATES
        if source.env_steps >= min(curve[-1][0] + evaluate_every, env_steps):
            curve.append((source.env_steps, source.evaluate(learner.policy, "k_step", seeds).rate))
            logs["success"] = curve[-1][1]
        on_round(source.env_steps, logs)
    return learner.policy, curve
