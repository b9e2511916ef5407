"""Small parts that several networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of diffusion times: (B,) → (B, dim)."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange(dim // 2) / (dim // 2 - 1))
        self.rates: Tensor
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        angles = time.to(self.rates.dtype)[:, None] * self.rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def mlp(widths: Sequence[int], *, norm: bool = False) -> nn.Sequential:
    """Linear layers with ReLU (and LayerNorm before it) between, none after the last."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if i < len(widths) - 2:
            layers += [nn.LayerNorm(b)] if norm else []
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
