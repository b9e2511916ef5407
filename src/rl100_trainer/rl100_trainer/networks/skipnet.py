"""Skip-Net: a residual MLP over the flattened action (chunk), diffusion time and condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rl100_trainer.networks.blocks import TimeEmbedding

TIME_DIM = 16


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)), the hidden layer ``expansion`` times as wide."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.up(self.norm(x)).relu())
        return out


class SkipNet(nn.Module):
    """``widths`` has one (equal) width per residual block."""

    def __init__(
        self,
        *,
        horizon: int,
        action_dim: int,
        condition: int,
        widths: Sequence[int],
        expansion: int,
    ) -> None:
        super().__init__()
        size, width = horizon * action_dim, widths[0]
        self.time = TimeEmbedding(TIME_DIM)
        self.enter = nn.Linear(size + TIME_DIM + condition, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, expansion) for _ in widths)
        self.leave = nn.Linear(width, size)

    def forward(self, sample: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """sample (B, h, d), time (B,), condition (B, c) → (B, h, d)."""
        x = self.enter(torch.cat([sample.flatten(1), self.time(time), condition], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.leave(x.relu()).reshape(sample.shape)
