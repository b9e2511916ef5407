"""Colour images in networks: from bytes to numbers, random shifts, and a small encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHIFT = 1 / 32  # largest shift, of the height and width
WIDTHS = (32, 32, 64, 64)  # channels; each layer halves height and width


def channels_first(images: Tensor) -> Tensor:
    """Images (…, H, W, 3), uint8, to (…, 3, H, W), float32 in [0, 1]."""
    last = images.ndim - 1  # ONNX knows no negative axes here
    return images.movedim(last, last - 2).float() / 255.0


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each observation's images (B, n_o, H, W, 3) moved at random by some pixels, alike in all
    frames; pixels at the border are repeated.

    A crop at random of an image that is padded by its border (Yarats et al. 2021), so that images
    keep their size and deployment needs no crop.
    """
    batch, _, height, width, _ = images.shape
    if not height * width:
        return images
    rows = torch.arange(batch, device=images.device)[:, None, None]
    places = []
    for size in (height, width):
        most = int(SHIFT * size)
        moves = torch.randint(-most, most + 1, (batch, 1), generator=generator)
        places.append((torch.arange(size) + moves).clamp(0, size - 1).to(images.device))
    return images[rows, :, places[0][:, :, None], places[1][:, None, :]].movedim(3, 1)


class SmallImageEncoder(nn.Module):
    """Four strided convolutions, for critics: (B, 3, H, W), float32 in [0, 1], to (B, out)."""

    def __init__(self, image_shape: tuple[int, int], out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, width = image_shape
        before = 3
        for channels in WIDTHS:
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.ReLU()]
            before, height, width = channels, -(-height // 2), -(-width // 2)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.project = nn.Linear(before * height * width, out)
        self.norm = nn.LayerNorm(out)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.norm(self.project(self.convolutions(images - 0.5)))
        return out
