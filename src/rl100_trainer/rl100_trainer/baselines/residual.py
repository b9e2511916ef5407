"""A cloned diffusion policy with a learnt residual: the policy class of the WSRL baseline."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rl100_trainer.config import TrainConfig
from rl100_trainer.networks.blocks import mlp
from rl100_trainer.networks.policy import Chain, DiffusionPolicy

HIDDEN = 256  # Zhou et al. 2025, locomotion
RESIDUAL = 0.5  # largest correction, in units of half the action's range
# σ before tanh; Zhou et al. clip it to 1e-5…10, tighter bounds keep log-probabilities sane.
INITIAL_LOG_STD, LOG_STD_RANGE = -1.5, (-5.0, 0.5)


def tanh_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """y = tanh(mean + σ noise) (B, d) and log p(y) (B,), nats (Haarnoja et al. 2018, app. C)."""
    before = mean + log_std.exp() * noise
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    # log(1 - tanh²), without the cancellation that makes it -inf for large values
    squash = 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))
    return before.tanh(), (normal - squash).sum(dim=-1)


class ResidualPolicy(DiffusionPolicy):
    """The frozen ``base`` (deterministic DDIM) plus a correction of the executed chunk.

    A condition carries the normalised state behind the base's; chains are one sample longer: the
    base's clean chunk, then the corrected one, whose log-prob (of the correction) is the last. So
    every rollout source runs it, only PPO over its chain would mean nothing. Before any update it
    does exactly what the base does.

    Args:
        config: the one that ``base`` was made with.
        seed: of the residual's weights.
    """

    def __init__(self, base: DiffusionPolicy, config: TrainConfig, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(base.spec, config)
            self.load_state_dict(base.state_dict())
            self.requires_grad_(False)
            self._encoded = self.condition_dim
            self.condition_dim += base.spec.n_obs_steps * base.spec.state_dim
            chunk = base.spec.n_action_steps * base.spec.action_dim
            self.actor = mlp([self.condition_dim + chunk, HIDDEN, HIDDEN, 2 * chunk], norm=True)
        leave = self.actor[-1]
        assert isinstance(leave, nn.Linear)
        nn.init.zeros_(leave.weight)
        nn.init.zeros_(leave.bias)
        self.to(base.normaliser.state_mean.device)

    def condition(self, state: Tensor, cloud: Tensor, image: Tensor | None = None) -> Tensor:
        """The base's condition and the normalised state: (B, c + n_o d_s)."""
        encoded = super().condition(state, cloud, image)
        return torch.cat([encoded, self.normaliser.state(state).flatten(1)], dim=-1)

    def denoise(self, sample: Tensor, k: int | Tensor, condition: Tensor) -> Tensor:
        """The base's denoiser."""
        return super().denoise(sample, k, condition[:, : self._encoded])

    def student_clean(self, sample: Tensor, k: int | Tensor, condition: Tensor) -> Tensor:
        """The base's student, with the mean of the correction."""
        clean = super().student_clean(sample, k, condition[:, : self._encoded])
        return self._corrected(condition, clean, torch.zeros_like(clean))[0]

    def base_chunk(self, condition: Tensor, noise: Tensor) -> Tensor:
        """The base's chunk (B, n_c, d), normalised, for starting noise (B, h, d)."""
        return self.limited(super().rollout(condition, noise).samples[-1])

    def limited(self, chunk: Tensor) -> Tensor:
        """The executed part (B, n_c, d) of normalised chunks (B, h, d), within ±1."""
        return chunk[:, : self.spec.n_action_steps].clamp(-1.0, 1.0)

    def rollout(
        self,
        condition: Tensor,
        noise: Tensor,
        step_noise: Tensor | None = None,
        scale: float | Tensor = 1.0,
    ) -> Chain:
        """K + 2 samples. Of ``step_noise`` only the last step's is used, for the correction."""
        base = super().rollout(condition, noise)
        drawn = torch.zeros_like(noise) if step_noise is None else scale * step_noise[-1]
        last, log_prob = self._corrected(condition, base.samples[-1], drawn)
        return Chain(
            torch.cat([base.samples, last[None]]), torch.cat([base.log_probs, log_prob[None]])
        )

    def _corrected(self, condition: Tensor, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        executed = self.spec.n_action_steps
        chunk, log_prob = self.correct(condition, self.limited(clean), noise[:, :executed])
        return torch.cat([chunk, clean[:, executed:]], dim=1), log_prob

    def correct(self, condition: Tensor, base: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Corrected chunks (B, n_c, d), within ±1, and log-probs (B,) of the correction, nats.

        The density is that of the squashed correction before it is scaled, (-1, 1) per dimension.

        Args:
            base: (B, n_c, d), normalised, within ±1.
            noise: (B, n_c, d), standard normal; 0 gives the mean.
        """
        out = self.actor(torch.cat([condition, base.flatten(1)], dim=-1))
        mean, log_std = out.chunk(2, dim=-1)
        log_std = (INITIAL_LOG_STD + log_std).clamp(*LOG_STD_RANGE)
        residual, log_prob = tanh_gaussian(mean, log_std, noise.flatten(1))
        return (base + RESIDUAL * residual.view_as(base)).clamp(-1.0, 1.0), log_prob
