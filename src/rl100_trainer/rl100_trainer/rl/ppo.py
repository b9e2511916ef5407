"""The clipped surrogate over a denoising chain (algorithm.md §2, paper eq. 18)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# e^20: far past any clip, and the squares of its gradients are still finite float32 numbers.
LARGEST_LOG_RATIO = 20.0
# Below this part of the largest advantage a spread is float32 rounding, not information.
ROUNDING = 1e-5
STEP_DECAY = 0.95  # a denoising step counts this much less than the one after it


@dataclass(frozen=True, eq=False)
class ChainStats:
    """How far the new policy is from the one that sampled the chains (tensors, no gradient).

    Attributes:
        kl: scalar, KL(old ‖ new) of the whole chain, nats: the sum of ``kl_steps``.
        kl_steps: (K,), KL(old ‖ new) of each denoising step, nats.
        clip_fraction: scalar, part of the ratios outside of 1 ± clip.
        ratio_mean, ratio_max: scalars.
    """

    kl: Tensor
    kl_steps: Tensor
    clip_fraction: Tensor
    ratio_mean: Tensor
    ratio_max: Tensor

    def as_dict(self) -> dict[str, float]:
        """The scalars, for logs (waits for the device)."""
        names = ("kl", "clip_fraction", "ratio_mean", "ratio_max")
        return {name: float(getattr(self, name)) for name in names}


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """(r - 1) - log r of each log-ratio log(new / old), same shape, never negative.

    Its mean over samples of the old policy estimates KL(old ‖ new) without bias and with less
    variance than the mean of -log r (Schulman's "k3").
    """
    return torch.expm1(log_ratio) - log_ratio


def denoising_weights(steps: int, device: torch.device) -> Tensor:
    """Weight of each denoising step (K,): 1 for the last one, less for the noisier ones."""
    return STEP_DECAY ** torch.arange(steps - 1, -1, -1, device=device, dtype=torch.float32)


def clipped_objective(
    log_ratio: Tensor, advantages: Tensor, clip: float, weights: Tensor | None = None
) -> tuple[Tensor, ChainStats]:
    """-J with J = E[Σ_k w_k min(r_k A, clip(r_k, 1 - ε, 1 + ε) A)], the same A for all k.

    Args:
        log_ratio: (K, B) float, log π_new - log π_old of each denoising step over the executed
            slice of the chunk. Beyond ±20 it is cut off (no gradient), so that one far sample
            can't make the loss infinite.
        advantages: (B,) float; no gradient flows into them.
        clip: ε.
        weights: (K,) float, w_k; None: 1 for all.

    Returns:
        Loss (scalar) to minimise, and how far the policies are apart.

    Raises:
        ValueError: shapes that would be broadcast silently, or a clip that isn't positive.
    """
    steps = log_ratio.shape[0]
    if log_ratio.shape != (steps, *advantages.shape) or advantages.ndim != 1:
        raise ValueError(
            f"log_ratio {tuple(log_ratio.shape)} and advantages {tuple(advantages.shape)} must be "
            "(K, B) and (B,)"
        )
    if weights is not None and weights.shape != (steps,):
        raise ValueError(f"weights {tuple(weights.shape)} must be (K,) = ({steps},)")
    if clip <= 0.0:
        raise ValueError(f"clip must be positive, not {clip}")
    log_ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = log_ratio.exp()
    gain = advantages.detach()
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1.0 - clip, 1.0 + clip) * gain)
    per_step = surrogate.mean(dim=1)
    objective = per_step.sum() if weights is None else (weights * per_step).sum()
    with torch.no_grad():
        kl_steps = approximate_kl(log_ratio).mean(dim=1)
        stats = ChainStats(
            kl=kl_steps.sum(),
            kl_steps=kl_steps,
            clip_fraction=((ratio - 1.0).abs() > clip).to(ratio.dtype).mean(),
            ratio_mean=ratio.mean(),
            ratio_max=ratio.max(),
        )
    return -objective, stats


def normalise_advantages(advantages: Tensor, limit: float = 4.0) -> Tensor:
    """Zero mean and unit variance over the batch, then cut off at ±limit: (B,) float → (B,).

    Advantages without spread (or a single one) become 0: there is nothing to learn from them.
    """
    centred = advantages - advantages.mean()
    spread = centred.square().mean().sqrt()
    floor = ROUNDING * advantages.abs().max()
    scaled = torch.where(spread <= floor, torch.zeros_like(centred), centred / spread)
    return scaled.clamp(-limit, limit)
