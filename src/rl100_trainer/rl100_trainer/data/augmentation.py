"""Augmentation: what is observed, as it might have looked as well. In training only.

Each function takes observations (B, n_o, …) in physical units and draws from a generator on the
CPU, so that a seed means the same everywhere. What is off draws nothing and returns its argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rl100_trainer.config import AugmentationConfig
from rl100_trainer.networks.images import shifted

LUMINANCE = (0.299, 0.587, 0.114)
#: What is done where nothing is asked for.
DEFAULT_AUGMENTATION = AugmentationConfig()
JITTER_CUT = 3.0  # standard deviations: no point is thrown far


def augmented(
    observed: tuple[Tensor, Tensor, Tensor],
    config: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """States, clouds and images of a batch, see ``Windows``, augmented; states stay as they are."""
    states, clouds, images = observed
    images = recoloured(shifted(images, generator), config.image_color, generator)
    if clouds.shape[2]:
        clouds = thinned(clouds, config.cloud_dropout, generator)
        clouds = cut_out(clouds, config.cloud_dropout, generator)
        shift, turn = config.camera_error
        clouds = displaced(clouds, shift, math.radians(turn), generator)
        clouds = jittered(clouds, config.cloud_jitter, generator)
    return states, clouds, images


def recoloured(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Images (B, n_o, H, W, 3), uint8, with other brightness, contrast and saturation.

    One factor each for an observation, 1 ± ``most``, the same in all of its frames.
    """
    if not most or not images.numel():
        return images
    drawn = 1.0 + most * (2.0 * torch.rand(3, len(images), generator=generator) - 1.0)
    brightness, contrast, saturation = drawn.to(images.device)[:, :, None, None, None, None]
    weights = torch.tensor(LUMINANCE, device=images.device)
    pixels = images.float() * brightness
    mean = (pixels @ weights).mean(dim=(1, 2, 3))[:, None, None, None, None]
    pixels = (pixels - mean) * contrast + mean
    grey = (pixels @ weights)[..., None]
    pixels = (pixels - grey) * saturation + grey
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _refilled(clouds: Tensor, order: Tensor, share: Tensor) -> Tensor:
    """The points that come first in ``order`` (B, n_o, N); of a ``share`` (B,) fewer, repeated."""
    count = clouds.shape[2]
    kept = count - (share * count).long().clamp(max=count - 1)
    places = torch.arange(count, device=clouds.device) % kept[:, None]
    index = order.gather(2, places[:, None].expand_as(order))
    # In the order that they had: the first points of a cloud are a sample of it (critics.py).
    index = index.sort(dim=2).values
    return clouds.gather(2, index[..., None].expand_as(clouds))


def thinned(clouds: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Clouds (B, n_o, N, 3) in which up to a share ``most`` of points is replaced by others."""
    if not most:
        return clouds
    share = most * torch.rand(len(clouds), generator=generator)
    order = torch.rand(clouds.shape[:3], generator=generator).argsort(dim=2)
    return _refilled(clouds, order.to(clouds.device), share.to(clouds.device))


def cut_out(clouds: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Clouds (B, n_o, N, 3) without up to a share ``most``: the points around one, as if hidden.

    The place is that of one point of the newest frame, the same in all frames; other points are
    repeated instead.
    """
    if not most:
        return clouds
    batch, _, count, _ = clouds.shape
    share = (most * torch.rand(batch, generator=generator)).to(clouds.device)
    chosen = torch.randint(count, (batch,), generator=generator).to(clouds.device)
    centre = clouds[torch.arange(batch, device=clouds.device), -1, chosen]
    distance = (clouds - centre[:, None, None]).square().sum(dim=3)
    return _refilled(clouds, distance.argsort(dim=2, descending=True), share)


def displaced(
    clouds: Tensor, shift: float, turn: float, generator: torch.Generator
) -> Tensor:
    """Clouds (B, n_o, N, 3) moved as one rigid body, as by an error of the camera's calibration.

    All frames of an observation move alike. The robot's state does not move: coordinates relative
    to the tool are computed afterwards, and follow.

    Args:
        shift: largest shift along each axis, m.
        turn: largest angle, about any axis through the middle of the newest cloud, rad.
    """
    if not shift and not turn:
        return clouds
    batch = len(clouds)
    axis = torch.nn.functional.normalize(torch.randn(batch, 3, generator=generator), dim=1)
    angle = turn * (2.0 * torch.rand(batch, 1, generator=generator) - 1.0)
    move = shift * (2.0 * torch.rand(batch, 3, generator=generator) - 1.0)
    x, y, z = (axis * angle).unbind(1)
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], dim=1).view(batch, 3, 3)
    rotation = torch.linalg.matrix_exp(cross).to(clouds)
    middle = clouds[:, -1:].mean(dim=2, keepdim=True)
    turned = torch.einsum("bij,bfnj->bfni", rotation, clouds - middle)
    return turned + middle + move.to(clouds)[:, None, None]


def jittered(clouds: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Clouds (B, n_o, N, 3) with normal noise of a standard deviation (m) on each coordinate."""
    if not deviation:
        return clouds
    noise = torch.randn(clouds.shape, generator=generator).clamp(-JITTER_CUT, JITTER_CUT)
    return clouds + deviation * noise.to(clouds)
