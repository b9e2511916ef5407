"""Observation encoder: point MLP with max-pooling, state MLP and an information bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rl100_trainer.networks.blocks import mlp
from rl100_trainer.networks.images import channels_first
from rl100_trainer.networks.pooling import linear_then_max
from rl100_trainer.networks.resnet import RgbEncoder

INITIAL_LOG_VARIANCE = -5.0
LOG_VARIANCE_RANGE = (-10.0, 4.0)


class Code(NamedTuple):
    """Posterior of the bottleneck, each (B, n_o, width)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw from the posterior, with standard normal ``noise`` of the same shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise


class PointEncoder(nn.Module):
    """DP3-style: the same MLP for every point, max over the points, projection, LayerNorm.

    ``norm`` says where LayerNorm stands: ``every`` (after each layer of the point MLP too, as
    DP3), ``end`` (after the projection only: cheaper, and what worked best here) or ``none``.
    """

    def __init__(self, point_dim: int, widths: Sequence[int], out: int, norm: str) -> None:
        super().__init__()
        self.points = mlp([point_dim, *widths], norm=norm == "every")
        self.project = nn.Linear(widths[-1], out)
        self.norm = nn.Identity() if norm == "none" else nn.LayerNorm(out)

    def forward(self, points: Tensor) -> Tensor:
        """(…, N, point_dim) → (…, out)."""
        # As one matrix of all points: ONNX Runtime then does a layer with bias and ReLU in one go.
        *before, last = self.points
        assert isinstance(last, nn.Linear)
        rows = points.flatten(0, -2)
        for layer in before:
            rows = layer(rows)
        return self.norm(self.project(linear_then_max(rows, points.shape[:-1], last)))


class ObservationEncoder(nn.Module):
    """Each frame's points, colour image and state to a code; frames share the weights.

    Without points (``point_dim`` 0) and images the code is the state's alone.
    """

    def __init__(
        self,
        *,
        point_dim: int,
        state_dim: int,
        point_widths: Sequence[int],
        features: int,
        norm: str,
        image_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if point_dim:
            self.cloud = PointEncoder(point_dim, point_widths, features, norm)
        if image_shape is not None:
            self.image = RgbEncoder(features, image_shape=image_shape)
        self.state = mlp([state_dim, features, features])
        self.width = features * (1 + bool(point_dim) + (image_shape is not None))
        self.mean = nn.Linear(self.width, self.width)
        self.log_variance = nn.Linear(self.width, self.width)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, INITIAL_LOG_VARIANCE)

    def forward(self, points: Tensor, state: Tensor, images: Tensor | None = None) -> Code:
        """Normalised points (B, n_o, N, point_dim) and state (B, n_o, d_s), and images
        (B, n_o, H, W, 3), uint8, to the posterior.
        """
        parts = [self.cloud(points)] if hasattr(self, "cloud") else []
        if hasattr(self, "image"):
            assert images is not None
            parts.append(self.image(channels_first(images)))
        joint = torch.cat([*parts, self.state(state)], dim=-1).relu()
        return Code(self.mean(joint), self.log_variance(joint).clamp(*LOG_VARIANCE_RANGE))


def kl_to_standard_normal(code: Code) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) of each sample, summed over the code: (B,), nats."""
    terms = code.mean.square() + code.log_variance.exp() - 1.0 - code.log_variance
    return 0.5 * terms.flatten(1).sum(dim=1)
