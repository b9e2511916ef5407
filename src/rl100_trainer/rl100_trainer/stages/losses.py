"""Losses of the imitation stage."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rl100_trainer.config import AugmentationConfig, ImitationConfig
from rl100_trainer.data.augmentation import DEFAULT_AUGMENTATION, augmented
from rl100_trainer.data.dataset import Windows
from rl100_trainer.networks.decoders import DECODED_POINTS, chamfer, unexplained
from rl100_trainer.networks.encoder import kl_to_standard_normal
from rl100_trainer.networks.images import channels_first
from rl100_trainer.networks.policy import DiffusionPolicy

NOISE_LEVELS = 4  # per observation, folded into the batch: the encoder is the dear part
SMALLEST_WEIGHT = 1e-3
RECONSTRUCTED = 32  # observations per step: Chamfer on all of them costs more than it teaches


def stratified_times(
    batch: int, levels: int, train_steps: int, generator: torch.Generator
) -> Tensor:
    """Diffusion times (levels * batch,): one from each of ``levels`` bands for each."""
    bands = torch.arange(levels)[:, None] + torch.rand(levels, batch, generator=generator)
    return (bands / levels * train_steps).long().clamp(max=train_steps - 1).flatten()


def diffusion_loss(
    policy: DiffusionPolicy,
    condition: Tensor,
    actions: Tensor,
    valid: Tensor,
    levels: int,
    generator: torch.Generator,
    weight: Tensor | None = None,
) -> Tensor:
    """Denoising loss with several noise levels per observation, folded into the batch.

    Args:
        condition: (B, c).
        actions: (B, h, d), normalised.
        valid: (B, h) bool; padding has no loss.
        weight: (B,), of each observation (advantage-weighted imitation); None: 1.
    """
    batch, device = len(actions), actions.device
    schedule = policy.schedule
    times = stratified_times(batch, levels, schedule.train_steps, generator).to(device)
    clean = actions.repeat(levels, 1, 1)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    noisy = schedule.add_noise(clean, noise, times)
    output = policy.denoiser(noisy, times, condition.repeat(levels, 1))
    errors = (output - schedule.target(clean, noise)).square().mean(dim=2)
    mask = valid.repeat(levels, 1).to(errors.dtype)
    if weight is not None:
        mask = mask * weight.repeat(levels)[:, None]
    return (errors * mask).sum() / mask.sum().clamp(min=SMALLEST_WEIGHT)


def reconstruction_loss(
    policy: DiffusionPolicy,
    code: Tensor,
    observed: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Chamfer distance of the cloud + squared error of the state + what a small image lacks, on a
    part of the batch."""
    some = slice(0, RECONSTRUCTED)
    states, clouds, images = observed
    points, state = policy.decoder(code[some])
    state_error = functional.mse_loss(state, policy.normaliser.state(states[some]))
    if policy.spec.image_shape is not None:
        decoded = policy.decoder.decode_image(code[some]).flatten(0, 1)
        seen = channels_first(images[some]).flatten(0, 1)
        state_error = state_error + unexplained(decoded, seen)
    if not policy.spec.num_points:
        return state_error
    cloud = policy.normaliser.xyz(clouds[some])
    count = cloud.shape[2]
    picked = torch.randperm(count, generator=generator)[: min(count, DECODED_POINTS)]
    wanted = cloud[:, :, picked.to(cloud.device)]
    distance = chamfer(points.flatten(0, 1), wanted.flatten(0, 1)).mean()
    return distance + state_error


def imitation_loss(
    policy: DiffusionPolicy,
    batch: Windows,
    config: ImitationConfig,
    generator: torch.Generator,
    augmentation: AugmentationConfig = DEFAULT_AUGMENTATION,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_IL + L_recon + L_KL, and its parts."""
    observed = augmented(batch.observed, augmentation, generator)
    code = policy.encode(*observed)
    noise = torch.randn(code.mean.shape, generator=generator).to(code.mean.device)
    drawn = code.sample(noise)
    actions = policy.normaliser.action(batch.actions)
    denoising = diffusion_loss(
        policy,
        drawn.flatten(1),
        actions,
        batch.valid,
        NOISE_LEVELS,
        generator,
        batch.weight,
    )
    loss, parts = denoising, {"denoising": denoising}
    if config.beta_recon > 0.0:
        parts["reconstruction"] = reconstruction_loss(policy, drawn, observed, generator)
        loss = loss + config.beta_recon * parts["reconstruction"]
    if config.beta_kl > 0.0:
        parts["kl"] = kl_to_standard_normal(code).mean()
        loss = loss + config.beta_kl * parts["kl"]
    return loss, parts
