"""DDIM with stochastic steps: noise schedule, one denoising step and its log-probability.

The one schedule that training, sampling, reinforcement learning and export share.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_BETA = 0.999


def squared_cosine_alphas(steps: int) -> Tensor:
    """Cumulative alphas of the squared-cosine schedule (cap v2), float32 (steps,)."""

    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2.0) ** 2

    betas = [min(1.0 - level((i + 1) / steps) / level(i / steps), MAX_BETA) for i in range(steps)]
    return torch.cumprod(1.0 - torch.tensor(betas), dim=0)


class Step(NamedTuple):
    """One denoising step: its result, the mean it was drawn around and the standard deviation."""

    sample: Tensor
    mean: Tensor
    sigma: Tensor


class DdimSchedule(nn.Module):
    """``steps`` DDIM steps over ``train_steps`` diffusion times, last ᾱ = 1, samples within ±1.

    Denoising steps are counted in the order in which they run: k = 0 starts at the noisiest time,
    ``timesteps[0]``. Samples are normalised actions (B, h, d), unitless.
    """

    def __init__(
        self,
        *,
        train_steps: int = 100,
        steps: int = 10,
        prediction: str = "epsilon",
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
    ) -> None:
        super().__init__()
        self.train_steps, self.steps, self.prediction = train_steps, steps, prediction
        stride = train_steps // steps
        if stride < 2:
            raise ValueError("train_steps must be at least twice the denoising steps")
        times = torch.arange(steps - 1, -1, -1) * stride + 1  # "leading" spacing, offset 1
        alphas = squared_cosine_alphas(train_steps)
        here = alphas[times]
        before = times - stride
        one = torch.ones((), dtype=here.dtype)
        there = torch.where(before >= 0, alphas[before.clamp(min=0)], one)
        variance = (1.0 - there) / (1.0 - here) * (1.0 - here / there)
        raw = variance.clamp(min=0.0).sqrt()
        self.alphas: Tensor
        self.timesteps: Tensor
        self.alpha: Tensor
        self.alpha_next: Tensor
        self.sigma: Tensor
        # Constants of the configuration, so they aren't part of the saved weights.
        self.register_buffer("alphas", alphas, persistent=False)
        self.register_buffer("timesteps", times, persistent=False)
        self.register_buffer("alpha", here, persistent=False)
        self.register_buffer("alpha_next", there, persistent=False)
        self.register_buffer("sigma", raw.clamp(sigma_min, sigma_max), persistent=False)

    @staticmethod
    def _column(values: Tensor, index: int | Tensor) -> Tensor:
        """``values[index]`` shaped to broadcast over (B, h, d)."""
        picked = values[index]
        return picked.reshape(-1, 1, 1) if picked.ndim else picked

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Diffuse clean actions (B, h, d) to the times ``time`` (B,), 0 … train_steps - 1."""
        alpha = self._column(self.alphas, time)
        return alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        """What the denoiser learns to predict."""
        return noise if self.prediction == "epsilon" else clean

    def split(self, output: Tensor, sample: Tensor, k: int | Tensor) -> tuple[Tensor, Tensor]:
        """Clean action (clipped to ±1) and noise that a denoiser's output stands for at step k."""
        alpha = self._column(self.alpha, k)
        if self.prediction == "epsilon":
            clean, noise = (sample - (1.0 - alpha).sqrt() * output) / alpha.sqrt(), output
        else:
            clean, noise = output, (sample - alpha.sqrt() * output) / (1.0 - alpha).sqrt()
        return clean.clamp(-1.0, 1.0), noise

    def mean(
        self, output: Tensor, sample: Tensor, k: int | Tensor, scale: float | Tensor = 1.0
    ) -> Tensor:
        """Mean of the next sample; ``scale`` multiplies σ (0: deterministic DDIM)."""
        clean, noise = self.split(output, sample, k)
        there, sigma = self._column(self.alpha_next, k), self._column(self.sigma, k) * scale
        # A raised σ may exceed what is left of the variance: then the direction term is gone.
        left = (1.0 - there - sigma * sigma).clamp(min=0.0)
        return there.sqrt() * clean + left.sqrt() * noise

    def step(
        self,
        output: Tensor,
        sample: Tensor,
        k: int | Tensor,
        noise: Tensor,
        scale: float | Tensor = 1.0,
    ) -> Step:
        """Denoise by one step with standard normal ``noise`` (B, h, d)."""
        mean = self.mean(output, sample, k, scale)
        sigma = self._column(self.sigma, k)
        return Step(mean + scale * sigma * noise, mean, sigma)

    def log_prob(self, value: Tensor, mean: Tensor, k: int | Tensor) -> Tensor:
        """log N(value; mean, σ_k) of each entry (B, h, d), nats. Needs σ_k > 0 (sigma_min > 0)."""
        sigma = self._column(self.sigma, k)
        scaled = (value - mean) / sigma
        return -0.5 * scaled * scaled - sigma.log() - 0.5 * math.log(2.0 * math.pi)
