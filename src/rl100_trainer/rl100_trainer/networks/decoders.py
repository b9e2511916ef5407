"""Reconstruction decoders (training only) and the Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rl100_trainer.networks.blocks import mlp

DECODED_POINTS = 64
SMALLEST_SPREAD = 1e-4  # variance of pixels in [0, 1]: of images that are all alike
DECODED_SIZE = 16  # height and width of a decoded image


class ReconstructionDecoder(nn.Module):
    """From a frame's code back to the normalised state, ``DECODED_POINTS`` normalised points and a
    small image.

    Without a cloud (``num_points`` 0) there are no points to decode, without ``image`` no image.
    """

    def __init__(self, width: int, state_dim: int, num_points: int, *, image: bool = False) -> None:
        super().__init__()
        if num_points:
            self.cloud = mlp([width, 128, DECODED_POINTS * 3])
        self.state = mlp([width, 64, state_dim])
        if image:
            self.image = mlp([width, 256, 3 * DECODED_SIZE**2])

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(…, width) → points (…, DECODED_POINTS or 0, 3), state (…, state_dim)."""
        if not hasattr(self, "cloud"):
            return code.new_zeros(*code.shape[:-1], 0, 3), self.state(code)
        return self.cloud(code).unflatten(-1, (DECODED_POINTS, 3)), self.state(code)

    def decode_image(self, code: Tensor) -> Tensor:
        """(…, width) → (…, 3, DECODED_SIZE, DECODED_SIZE), difference from the mean image."""
        return self.image(code).unflatten(-1, (3, DECODED_SIZE, DECODED_SIZE))


def chamfer(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance to the nearest point, both ways: (B, N, 3), (B, M, 3) → (B,)."""
    squared = (
        first.square().sum(-1)[:, :, None]
        + second.square().sum(-1)[:, None, :]
        - 2.0 * torch.bmm(first, second.transpose(1, 2))
    ).clamp(min=0.0)
    return squared.amin(dim=2).mean(dim=1) + squared.amin(dim=1).mean(dim=1)


def unexplained(decoded: Tensor, images: Tensor) -> Tensor:
    """Part of the images' variance that is not decoded: 0 for all of it, 1 for nothing.

    What is decoded is how an image differs from the mean of its batch, and the error is in units of
    how much they differ: most of each is a background that never changes, and a plain squared error
    would hardly notice the few pixels of what moves.

    Args:
        decoded: (B, 3, h, w), difference from the mean image.
        images: (B, 3, H, W), in [0, 1]; averaged to h x w.
    """
    size = decoded.shape[-2], decoded.shape[-1]
    small = functional.adaptive_avg_pool2d(images, size)
    wanted = small - small.mean(dim=0)
    spread = wanted.square().mean().clamp(min=SMALLEST_SPREAD)
    return (decoded - wanted).square().mean() / spread
