"""Online stage: PPO over the denoising chain on fresh rollouts, with the student alongside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rl100_contracts.errors import ContractError
from rl100_trainer.config import TrainConfig
from rl100_trainer.distill import consistency_loss, student_rate
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.encoder import kl_to_standard_normal
from rl100_trainer.networks.parts import in_parts
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.ppo import (
    clipped_objective,
    denoising_weights,
    normalise_advantages,
)
from rl100_trainer.rl.returns import generalised_advantages
from rl100_trainer.rollouts.trajectory import OBSERVED, Trajectory, stack
from rl100_trainer.stages.losses import reconstruction_loss

TRACE = 0.95  # λ of GAE
REGULARISERS = 0.1  # of their weight in the imitation stage (paper)
FINAL_RATE = 0.15
CRITIC_RATE = 1e-3
EPOCHS = 4
MINIBATCHES = 4  # in an epoch
# KL of the worst denoising step in a round, nats. The learning rate follows it: networks and tasks
# differ by an order of magnitude in how far one step of the same rate takes them.
TARGET_KL = 0.01
KL_STOP = 4.0 * TARGET_KL  # the actor leaves the rest of the round alone
SLOWER, FASTER, SLOWEST, FIRST_PACE = 0.7, 1.15, 0.01, 0.25
LARGEST_GRADIENT = 0.5
DISTILL_LEVELS = 2
RECOMPUTED_LIMIT = 1e-3
ENCODE_BATCH = 2048


@dataclass(frozen=True)
class Experience:
    """M decisions of one round, ready to learn from.

    Attributes:
        states, clouds, images, times: as :class:`Trajectory`, without the rows after the last
            chunk.
        chains: (K + 1, M, h, d), normalised.
        log_probs: (K, M), nats, recorded.
        advantages: (M,), normalised.
        targets: (M,), of the value function.
        values: (M,), what the value function said before.
    """

    states: Tensor
    clouds: Tensor
    images: Tensor
    times: Tensor
    chains: Tensor
    log_probs: Tensor
    advantages: Tensor
    targets: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.advantages)

    def observed(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """States, clouds and images of some rows: what a policy encodes."""
        return self.states[rows], self.clouds[rows], self.images[rows]


def chain_encoder_loss(
    policy: DiffusionPolicy,
    config: TrainConfig,
    observed: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Condition (B, c) with gradients, and the regularisers at a tenth of their weight."""
    code = policy.encode(*observed)
    loss = torch.zeros((), device=code.mean.device)
    il = config.imitation
    if il.beta_kl > 0.0:
        loss = loss + REGULARISERS * il.beta_kl * kl_to_standard_normal(code).mean()
    if il.beta_recon > 0.0:
        recon = reconstruction_loss(policy, code.mean, observed, generator)
        loss = loss + REGULARISERS * il.beta_recon * recon
    return code.mean.flatten(1), loss


def _check_finite(logs: dict[str, float]) -> None:
    """A NaN passes every comparison with a limit, so it must not be left to the KL stop."""
    wrong = [name for name, value in logs.items() if not math.isfinite(value)]
    if wrong:
        raise ContractError(
            f"{', '.join(wrong)} of the online update is not finite; the policies so far are kept: "
            "give a lower online.learning_rate to a new run"
        )


class OnlineLearner:
    """The update of the online stage; where experience comes from is not its business.

    Args:
        policy: improved in place (encoder, denoiser, student).
        value: V, warm-started by the offline stage or fresh.
    """

    def __init__(
        self, policy: DiffusionPolicy, value: Critic, config: TrainConfig, seed: int
    ) -> None:
        self.policy, self.value, self.config = policy, value, config
        online = config.online
        self.actor_parameters = list(policy.denoiser.parameters())
        if online.train_encoder:
            self.actor_parameters += [*policy.encoder.parameters(), *policy.decoder.parameters()]
        self.actor = torch.optim.Adam(
            self.actor_parameters, lr=online.learning_rate, betas=(0.9, 0.99)
        )
        self.student = torch.optim.Adam(policy.student.parameters(), lr=student_rate(config))
        self.critic = torch.optim.Adam(value.parameters(), lr=CRITIC_RATE)
        self.generator = torch.Generator().manual_seed(seed)
        self.pace = FIRST_PACE
        self.weights = denoising_weights(policy.schedule.steps, policy.schedule.sigma.device)

    @torch.no_grad()
    def _values(self, *observed: Tensor) -> Tensor:
        return in_parts(self.value, *observed, size=ENCODE_BATCH)

    def prepare(self, trajectories: Sequence[Trajectory]) -> Experience:
        """Advantages and targets with the present value function."""
        device = self.weights.device
        names = (*OBSERVED, "times")
        values = self._values(*(stack(trajectories, n, last=True).to(device) for n in names)).cpu()
        advantages, targets, start = [], [], 0
        for run in trajectories:
            own = values[start : start + len(run) + 1]
            start += len(run) + 1
            discounts = run.discounts(self.config.critic.discount)
            gains, wanted = generalised_advantages(
                torch.from_numpy(run.rewards), own, discounts, TRACE
            )
            advantages.append(gains)
            targets.append(wanted)
        raw, wanted = torch.cat(advantages), torch.cat(targets)
        return Experience(
            **{name: stack(trajectories, name).to(device) for name in names},
            chains=stack(trajectories, "chains").transpose(0, 1).contiguous().to(device),
            log_probs=stack(trajectories, "log_probs").transpose(0, 1).contiguous().to(device),
            advantages=normalise_advantages(raw).to(device),
            targets=wanted.to(device),
            values=(wanted - raw).to(device),
        )

    @torch.no_grad()
    def recomputed_difference(self, data: Experience) -> float:
        """Largest difference of recorded and recomputed log-probabilities, nats."""
        worst = 0.0
        for start in range(0, len(data), ENCODE_BATCH):
            part = slice(start, start + ENCODE_BATCH)
            condition = self.policy.condition(*data.observed(part))
            now = self.policy.chain_log_probs(condition, data.chains[:, part])
            gap = float((now - data.log_probs[:, part]).abs().max())
            worst = max(worst, gap) if math.isfinite(gap) else math.inf
        return worst

    def update(
        self, trajectories: Sequence[Trajectory], part: float, *, critic_only: bool = False
    ) -> dict[str, float]:
        """Learn from one round; returns what to log.

        Args:
            part: of the stage that has gone by; the actor's learning rate falls with it.
            critic_only: leave the policy as it is.

        Raises:
            ContractError: the recorded log-probabilities aren't this policy's, or a loss is not
                finite.
        """
        data = self.prepare(trajectories)
        gap = self.recomputed_difference(data)
        if not gap <= RECOMPUTED_LIMIT:
            raise ContractError(
                f"the rollouts' log-probabilities differ from the policy's by {gap:.2g} nats: they "
                "were recorded with another policy, or with other noise bounds"
            )
        online = self.config.online
        for group in self.actor.param_groups:
            falling = 1.0 - (1.0 - FINAL_RATE) * min(1.0, part)
            group["lr"] = self.pace * falling * online.learning_rate
        minibatch = max(1, -(-len(data) // MINIBATCHES))
        sums: dict[str, list[float]] = {}
        reached, stopped = 0.0, False
        for _ in range(EPOCHS):
            order = torch.randperm(len(data), generator=self.generator).to(self.weights.device)
            for index in order.split(minibatch):
                logs = self._critic_step(data, index)
                acts = not critic_only and not stopped
                if acts:
                    logs |= self._actor_step(data, index)
                _check_finite(logs)
                if acts:
                    # Only the worst denoising step tells of a collapse in time.
                    reached = max(reached, logs["kl_step"])
                    stopped = reached > KL_STOP
                for key, number in logs.items():
                    sums.setdefault(key, []).append(number)
        if not critic_only:
            self._set_pace(reached)
        spread = float((data.targets - data.values).var() / data.targets.var().clamp(min=1e-8))
        return {
            **{key: sum(values) / len(values) for key, values in sums.items()},
            "explained_variance": 1.0 - spread,
            "recomputed_difference": gap,
            "kl_reached": reached,
            "kl_stopped": float(stopped),
            "pace": self.pace,
        }

    def _set_pace(self, reached: float) -> None:
        """Follow the KL of the round's worst denoising step with the learning rate."""
        if reached > 1.5 * TARGET_KL:
            self.pace = max(SLOWEST, SLOWER * self.pace)
        elif reached < TARGET_KL:
            self.pace = min(1.0, FASTER * self.pace)

    def _critic_step(self, data: Experience, index: Tensor) -> dict[str, float]:
        predicted = self.value(*data.observed(index), data.times[index])
        loss = (predicted - data.targets[index]).square().mean()
        self._descend(self.critic, loss, list(self.value.parameters()))
        return {"value_loss": float(loss.detach())}

    def _actor_step(self, data: Experience, index: Tensor) -> dict[str, float]:
        policy, online = self.policy, self.config.online
        observed = data.observed(index)
        if online.train_encoder:
            condition, extra = chain_encoder_loss(policy, self.config, observed, self.generator)
        else:
            with torch.no_grad():
                condition = policy.condition(*observed)
            extra = torch.zeros((), device=condition.device)
        now = policy.chain_log_probs(condition, data.chains[:, index])
        loss, stats = clipped_objective(
            now - data.log_probs[:, index], data.advantages[index], online.clip, self.weights
        )
        self._descend(self.actor, loss + extra, self.actor_parameters)
        logs = {"policy_loss": float(loss.detach()), **stats.as_dict()}
        logs["kl_step"] = float(stats.kl_steps.max())
        if online.distill_weight > 0.0:
            loss = consistency_loss(policy, condition, DISTILL_LEVELS, self.generator)
            self._descend(self.student, loss, list(policy.student.parameters()))
            logs["distill_loss"] = float(loss.detach())
        return logs

    @staticmethod
    def _descend(
        optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        optimizer.step()
