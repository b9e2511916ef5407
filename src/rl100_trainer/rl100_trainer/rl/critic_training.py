"""Training of the offline critics and of the transition model on one set of data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rl100_contracts.errors import ContractError
from rl100_trainer.config import AugmentationConfig, CriticConfig
from rl100_trainer.data.augmentation import DEFAULT_AUGMENTATION, augmented
from rl100_trainer.data.transitions import Transitions
from rl100_trainer.networks.critics import Critic, FeatureQ, TwinQ
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.networks.transition import GaussianEnsemble, bootstrap_weights
from rl100_trainer.rl.iql import iql_losses, mixed_target, polyak, td_target
from rl100_trainer.rollouts.source import standard_normal

POLYAK = 0.005
LEARNING_RATE = 1e-3
BATCH = 256
BOUND_WEIGHT = 0.01
HELD_OUT = 0.1
LARGEST_GRADIENT = 1.0
VARIANCE_WEIGHT = 0.5  # β of β-NLL: without it a sparse reward is explained away as noise
MODEL_STEPS = 0.5  # of the critics' steps: the model converges sooner
FEATURE_STEPS = 0.5

OnStep = Callable[[str, int, int, float], None]


def _fit(
    loss_function: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    rows: Tensor,
    steps: int,
    rate: float,
    generator: torch.Generator,
    report: Callable[[int, float], None],
    after: Callable[[], None] = lambda: None,
) -> float:
    """AdamW with cosine decay on random batches of ``rows``; returns the mean last loss.

    Raises:
        ContractError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.05 * rate)
    recent = torch.zeros(())
    for step in range(steps):
        picked = torch.randint(len(rows), (BATCH,), generator=generator).to(rows.device)
        loss = loss_function(rows[picked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        after()
        recent = 0.98 * recent + 0.02 * loss.detach().cpu() if step else loss.detach().cpu()
        shown = float(recent)
        if not math.isfinite(shown):  # once it isn't, it stays so
            raise ContractError(
                f"a loss of the critics or of their model is not finite after {step + 1} of "
                f"{steps} steps: check the episodes for outliers in states, actions and rewards"
            )
        report(step + 1, shown)
    return float(recent)


class OfflineCritics:
    """Q and V with encoders of their own, and what the gate needs: feature Q and the model.

    :meth:`fit_values` comes first; the policy may change between it and :meth:`fit_judge`.

    Args:
        policy: its encoder is frozen in this stage; its normaliser is shared.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        config: CriticConfig,
        seed: int,
        augmentation: AugmentationConfig = DEFAULT_AUGMENTATION,
    ) -> None:
        spec = policy.spec
        self.policy, self.config, self.augmentation = policy, config, augmentation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.q = TwinQ(spec, policy.normaliser)
            self.v = Critic(spec, policy.normaliser, with_action=False)
            chunk = spec.n_action_steps * spec.action_dim
            self.feature_q = FeatureQ(policy.condition_dim, chunk)
            self.model = GaussianEnsemble(z_dim=policy.condition_dim, action_dim=chunk)
        device = policy.normaliser.state_mean.device
        for part in (self.q, self.v, self.feature_q, self.model):
            part.to(device)
        self.generator = torch.Generator().manual_seed(seed)

    def fit_values(self, data: Transitions, on_step: OnStep) -> dict[str, float]:
        """Train Q and V on ``data``; they have nothing to do with the policy."""
        return {"critic_loss": self._fit_critics(data, on_step)}

    def fit_judge(self, data: Transitions, conditions: Tensor, on_step: OnStep) -> dict[str, float]:
        """Train what the gate needs, after Q: feature Q and model, in the policy's features.

        Args:
            conditions: (S, c), the encoded observations of ``data``.
        """
        return {
            "feature_q_loss": self._fit_feature_q(data, conditions, on_step),
            "model_nll": self._fit_model(data, conditions, on_step),
        }

    def advantage(self, data: Transitions, rows: Tensor, actions: Tensor) -> Tensor:
        """A = min Q(s, a) - V(s) of normalised actions (B, n_c, d) at the rows (B,)."""
        with torch.no_grad():
            observed = *data.observed(rows), data.times[rows]
            q = torch.minimum(*self.q(*observed, actions))
            return q - self.v(*observed)

    def _fit_critics(self, data: Transitions, on_step: OnStep) -> float:
        target = copy.deepcopy(self.q)
        normaliser = self.policy.normaliser

        def loss(rows: Tensor) -> Tensor:
            # Few images and many steps: without shifts a critic learns them by heart.
            seen = augmented(data.observed(rows), self.augmentation, self.generator)
            observed = *seen, data.times[rows]
            actions = normaliser.action(data.actions[rows])
            then = data.following[rows]
            with torch.no_grad():
                after = self.v(*data.observed(then), data.times[then])
                wanted = td_target(data.rewards[rows], data.discounts[rows], after)
                wanted = mixed_target(wanted, data.returns[rows], self.config.monte_carlo)
                least = torch.minimum(*target(*observed, actions))
            q = torch.stack(self.q(*observed, actions))
            losses = iql_losses(q, wanted, self.v(*observed), least, self.config.expectile)
            return losses.q + losses.v

        steps = self.config.steps
        return _fit(
            loss,
            [*self.q.parameters(), *self.v.parameters()],
            data.rows,
            steps,
            LEARNING_RATE,
            self.generator,
            lambda step, value: on_step("critics", step, steps, value),
            lambda: polyak(target, self.q, POLYAK),
        )

    def _fit_feature_q(self, data: Transitions, conditions: Tensor, on_step: OnStep) -> float:
        """Distil Q into feature space, at recorded and at the policy's own actions."""
        policy, device = self.policy, conditions.device
        shape = (policy.horizon, policy.spec.action_dim)

        def loss(rows: Tensor) -> Tensor:
            half = len(rows) // 2
            recorded = policy.normaliser.action(data.actions[rows[:half]])
            condition = conditions[rows]
            with torch.no_grad():
                size = (len(rows) - half, *shape)
                noise = standard_normal(size, self.generator, device)
                steps = standard_normal((policy.schedule.steps, *size), self.generator, device)
                sampled = policy.rollout(condition[half:], noise, steps).samples[-1]
                sampled = sampled[:, : policy.spec.n_action_steps].clamp(-1.0, 1.0)
                actions = torch.cat([recorded, sampled])
                observed = *data.observed(rows), data.times[rows]
                wanted = torch.stack(self.q(*observed, actions))
            features = torch.cat([condition, data.times[rows, None]], dim=1)
            return (self.feature_q(features, actions.flatten(1)) - wanted).square().mean()

        steps = max(1, int(FEATURE_STEPS * self.config.steps))
        return _fit(
            loss,
            list(self.feature_q.parameters()),
            data.rows,
            steps,
            LEARNING_RATE,
            self.generator,
            lambda step, value: on_step("feature Q", step, steps, value),
        )

    def _fit_model(self, data: Transitions, conditions: Tensor, on_step: OnStep) -> float:
        model, rows = self.model, data.rows
        actions = self.policy.normaliser.action(data.actions).flatten(1)
        known = data.discounts > 0.0
        # A time-out isn't an end of the task; only the verdict "success" is.
        ended = ~known & data.success[data.episode]
        following = conditions[data.following]
        model.fit(conditions[rows], actions[rows], following[rows], data.rewards[rows], known[rows])
        order = rows[torch.randperm(len(rows), generator=self.generator).to(rows.device)]
        count = max(1, int(HELD_OUT * len(order)))
        held, kept = order[:count], order[count:]
        weights = bootstrap_weights(model.members, len(data.times), self.generator)
        weights = weights.to(rows.device)

        def members(chosen: Tensor, with_weights: bool) -> Tensor:
            return model.nll(
                conditions[chosen],
                actions[chosen],
                following[chosen],
                data.rewards[chosen],
                ended[chosen],
                weights=weights[:, chosen] if with_weights else None,
                known=known[chosen],
                beta=VARIANCE_WEIGHT if with_weights else 0.0,
            )

        def loss(chosen: Tensor) -> Tensor:
            return members(chosen, True).sum() + BOUND_WEIGHT * model.bound_penalty()

        steps = max(1, int(MODEL_STEPS * self.config.steps))
        _fit(
            loss,
            list(model.parameters()),
            kept,
            steps,
            LEARNING_RATE,
            self.generator,
            lambda step, value: on_step("model", step, steps, value),
        )
        with torch.no_grad():
            errors = members(held, False)
        model.choose_elites(errors)
        return float(errors.min())
