"""The policy: encoder, K-step denoiser, one-step student, normaliser and schedule as one module."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rl100_trainer.config import TRAIN_STEPS, ModelConfig, TrainConfig
from rl100_trainer.diffusion.schedule import DdimSchedule
from rl100_trainer.networks.decoders import ReconstructionDecoder
from rl100_trainer.networks.encoder import Code, ObservationEncoder
from rl100_trainer.networks.normaliser import Normaliser
from rl100_trainer.networks.skipnet import SkipNet
from rl100_trainer.networks.unet import UNet1d
from rl100_trainer.spec import PolicySpec


class Chain(NamedTuple):
    """A sampled denoising chain: samples (K + 1, B, h, d), normalised, and log-probs (K, B)."""

    samples: Tensor
    log_probs: Tensor


def _denoiser(spec: PolicySpec, model: ModelConfig, horizon: int, condition: int) -> nn.Module:
    if model.denoiser == "unet":
        return UNet1d(action_dim=spec.action_dim, condition=condition, widths=model.widths)
    return SkipNet(
        horizon=horizon,
        action_dim=spec.action_dim,
        condition=condition,
        widths=model.widths,
        expansion=model.expansion,
    )


class DiffusionPolicy(nn.Module):
    """A diffusion policy and its one-step student.

    Observations are in physical units: state (B, n_o, d_s), cloud (B, n_o, N, 3), and image
    (B, n_o, H, W, 3), uint8, which only a policy that sees images looks at. Noise, chains and
    actions inside are normalised, (B, h, d). A *condition* is an encoded observation, (B, c).
    """

    def __init__(self, spec: PolicySpec, config: TrainConfig) -> None:
        super().__init__()
        model = config.model
        self.spec = spec
        self.horizon = model.horizon or spec.n_action_steps
        self.normaliser = Normaliser(spec)
        self.schedule = DdimSchedule(
            train_steps=TRAIN_STEPS,
            steps=config.diffusion.steps,
            prediction=model.prediction,
            sigma_min=config.diffusion.sigma_min,
            sigma_max=config.diffusion.sigma_max,
        )
        self.encoder = ObservationEncoder(
            point_dim=spec.point_dim if spec.num_points else 0,
            state_dim=spec.state_dim,
            point_widths=model.point_widths,
            features=model.features,
            norm=model.norm,
            image_shape=spec.image_shape,
        )
        self.condition_dim = spec.n_obs_steps * self.encoder.width
        self.decoder = ReconstructionDecoder(
            self.encoder.width,
            spec.state_dim,
            spec.num_points,
            image=spec.image_shape is not None,
        )
        self.denoiser = _denoiser(spec, model, self.horizon, self.condition_dim)
        self.student = _denoiser(spec, model, self.horizon, self.condition_dim)

    def encode(self, state: Tensor, cloud: Tensor, image: Tensor | None = None) -> Code:
        """Posterior of the bottleneck, each (B, n_o, width)."""
        points = self.normaliser.points(state, cloud)
        code: Code = self.encoder(points, self.normaliser.state(state), image)
        return code

    def condition(self, state: Tensor, cloud: Tensor, image: Tensor | None = None) -> Tensor:
        """Condition (B, c): the mean of the bottleneck, as at deployment."""
        return self.encode(state, cloud, image).mean.flatten(1)

    def _times(self, k: int | Tensor, batch: int) -> Tensor:
        return self.schedule.timesteps[k].expand(batch)

    def denoise(self, sample: Tensor, k: int | Tensor, condition: Tensor) -> Tensor:
        """The denoiser's output at denoising step k (an int, or (B,) one for each sample)."""
        out: Tensor = self.denoiser(sample, self._times(k, sample.shape[0]), condition)
        return out

    def rollout(
        self,
        condition: Tensor,
        noise: Tensor,
        step_noise: Tensor | None = None,
        scale: float | Tensor = 1.0,
    ) -> Chain:
        """Run the K-step chain from ``noise`` (B, h, d).

        Args:
            step_noise: (K, B, h, d); None: deterministic (its log-probs then mean nothing).
            scale: multiplies σ; log-probs are those of the stochastic policy only at 1.
        """
        samples, log_probs, executed = [noise], [], self.spec.n_action_steps
        for k in range(self.schedule.steps):
            now = samples[-1]
            drawn = torch.zeros_like(now) if step_noise is None else step_noise[k]
            output = self.denoise(now, k, condition)
            step = self.schedule.step(output, now, k, drawn, 0.0 if step_noise is None else scale)
            samples.append(step.sample)
            entries = self.schedule.log_prob(step.sample, step.mean, k)
            log_probs.append(entries[:, :executed].sum(dim=(1, 2)))
        return Chain(torch.stack(samples), torch.stack(log_probs))

    def chain_log_probs(self, condition: Tensor, chain: Tensor) -> Tensor:
        """Log-probs (K, B) of recorded chains (K + 1, B, h, d), all steps folded into one batch.

        Each is summed over the executed slice of the chunk and over the action's dimensions.
        """
        steps, batch = chain.shape[0] - 1, chain.shape[1]
        k = torch.arange(steps, device=chain.device).repeat_interleave(batch)
        now, then = chain[:-1].flatten(0, 1), chain[1:].flatten(0, 1)
        output = self.denoise(now, k, condition.repeat(steps, 1))
        entries = self.schedule.log_prob(then, self.schedule.mean(output, now, k), k)
        return entries[:, : self.spec.n_action_steps].sum(dim=(1, 2)).view(steps, batch)

    def student_clean(self, sample: Tensor, k: int | Tensor, condition: Tensor) -> Tensor:
        """The student's clean action (B, h, d) for samples at denoising step k.

        √ᾱ x + √(1-ᾱ) F(x): without noise (ᾱ = 1) it is the identity, which is the boundary
        condition of a consistency model.
        """
        alpha = self.schedule.alpha[k]
        alpha = alpha.reshape(-1, 1, 1) if alpha.ndim else alpha
        output = self.student(sample, self._times(k, sample.shape[0]), condition)
        return alpha.sqrt() * sample + (1.0 - alpha).sqrt() * output

    def act(
        self, state: Tensor, cloud: Tensor, noise: Tensor, image: Tensor | None = None
    ) -> Tensor:
        """One-step action (B, n_c, d), task units."""
        clean = self.student_clean(noise, 0, self.condition(state, cloud, image))
        return self.executed(clean)

    def executed(self, clean: Tensor) -> Tensor:
        """Normalised clean actions (B, h, d) to the executed ones (B, n_c, d), task units."""
        return self.normaliser.physical_action(clean[:, : self.spec.n_action_steps])
