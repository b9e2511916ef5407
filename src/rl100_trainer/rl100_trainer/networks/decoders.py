"""Reconstruction decoders (training only) and the Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl100_trainer.networks.blocks import mlp

DECODED_POINTS = 64


class ReconstructionDecoder(nn.Module):
    """From a frame's code back to ``DECODED_POINTS`` points and the state, all normalised."""

    def __init__(self, width: int, state_dim: int) -> None:
        super().__init__()
        self.cloud = mlp([width, 128, DECODED_POINTS * 3])
        self.state = mlp([width, 64, state_dim])

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(…, width) → points (…, DECODED_POINTS, 3), state (…, state_dim)."""
        return self.cloud(code).unflatten(-1, (DECODED_POINTS, 3)), self.state(code)


def chamfer(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance to the nearest point, both ways: (B, N, 3), (B, M, 3) → (B,)."""
    squared = (
        first.square().sum(-1)[:, :, None]
        + second.square().sum(-1)[:, None, :]
        - 2.0 * torch.bmm(first, second.transpose(1, 2))
    ).clamp(min=0.0)
    return squared.amin(dim=2).mean(dim=1) + squared.amin(dim=1).mean(dim=1)
