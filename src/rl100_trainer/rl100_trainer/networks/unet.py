"""1-D U-Net over the action chunk, conditioned by FiLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rl100_trainer.networks.blocks import TimeEmbedding

TIME_DIM = 64
KERNEL = 5
GROUPS = 8


class FilmBlock(nn.Module):
    """Two convolutions with GroupNorm and Mish; scale and shift from the condition between them."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(channels_in, channels_out, KERNEL, padding=KERNEL // 2),
            nn.GroupNorm(GROUPS, channels_out),
            nn.Mish(),
        )
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * channels_out))
        self.second = nn.Sequential(
            nn.Conv1d(channels_out, channels_out, KERNEL, padding=KERNEL // 2),
            nn.GroupNorm(GROUPS, channels_out),
            nn.Mish(),
        )
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv1d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None].chunk(2, dim=1)
        out: Tensor = self.second(self.first(x) * (1.0 + scale) + shift) + self.skip(x)
        return out


class FilmPair(nn.Module):
    """Two FiLM blocks in a row."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first = FilmBlock(channels_in, channels_out, condition)
        self.second = FilmBlock(channels_out, channels_out, condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, condition), condition)
        return out


class UNet1d(nn.Module):
    """``widths`` are the channels of each level; every level but the first halves the chunk.

    A chunk whose length isn't a multiple of the halvings is padded inside.
    """

    def __init__(self, *, action_dim: int, condition: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.time = nn.Sequential(
            TimeEmbedding(TIME_DIM), nn.Linear(TIME_DIM, 2 * TIME_DIM), nn.Mish(),
            nn.Linear(2 * TIME_DIM, TIME_DIM),
        )  # fmt: skip
        cond = condition + TIME_DIM
        ins = [action_dim, *widths[:-1]]
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for i, (a, b) in enumerate(zip(ins, widths, strict=True)):
            self.down.append(FilmPair(a, b, cond))
            if i < len(widths) - 1:
                self.shrink.append(nn.Conv1d(b, b, 3, stride=2, padding=1))
        top = widths[-1]
        self.middle = FilmPair(top, top, cond)
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            self.grow.append(nn.ConvTranspose1d(a, b, 4, stride=2, padding=1))
            self.up.append(FilmPair(2 * b, b, cond))
        self.leave = nn.Sequential(
            nn.Conv1d(widths[0], widths[0], KERNEL, padding=KERNEL // 2),
            nn.GroupNorm(GROUPS, widths[0]),
            nn.Mish(),
            nn.Conv1d(widths[0], action_dim, 1),
        )

    def forward(self, sample: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """sample (B, h, d), time (B,), condition (B, c) → (B, h, d)."""
        horizon = sample.shape[1]
        x = sample.transpose(1, 2)
        padding = -horizon % self.multiple
        if padding:
            x = functional.pad(x, (0, padding))
        cond = torch.cat([condition, self.time(time)], dim=-1)
        skips: list[Tensor] = []
        for i, pair in enumerate(self.down):
            x = pair(x, cond)
            if i < len(self.shrink):
                skips.append(x)
                x = self.shrink[i](x)
        x = self.middle(x, cond)
        for grow, pair in zip(self.grow, self.up, strict=True):
            x = pair(torch.cat([grow(x), skips.pop()], dim=1), cond)
        out: Tensor = self.leave(x)[:, :, :horizon]
        return out.transpose(1, 2)
