"""A linear layer and the maximum over points, with the gradient of the few points that won."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _LinearThenMax(torch.autograd.Function):
    """Only the point that has the maximum of a feature gets its gradient.

    So the backward pass needs a row of ``weight`` for each feature in place of a matrix product
    over all points.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, count: int) -> Tensor:
        features = nn.functional.linear(rows, weight).unflatten(0, (-1, count))
        pooled, winners = features.max(dim=1)
        ctx.save_for_backward(rows, weight, winners)
        ctx.count = count
        return pooled + bias  # the same for every point, so it changes no winner

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, weight, winners = ctx.saved_tensors
        first = torch.arange(0, len(rows), ctx.count, device=rows.device)
        index = (winners + first[:, None]).flatten()
        each = (grad[..., None] * weight).flatten(0, 1)
        to_rows = torch.zeros_like(rows)
        to_rows.scatter_add_(0, index[:, None].expand_as(each), each)
        chosen = rows.index_select(0, index).unflatten(0, grad.shape)
        return to_rows, torch.einsum("gf,gfk->fk", grad, chosen), grad.sum(dim=0), None


def linear_then_max(rows: Tensor, groups: torch.Size, layer: nn.Linear) -> Tensor:
    """A layer for all points, then the maximum of each feature over the points of a group.

    A training step costs half of what the two operations cost one after the other. Of several
    points with the same maximum one gets the gradient, as with ``max``.

    Args:
        rows: (M, k), all points as one matrix.
        groups: (…, N), N points each; M of them in all.

    Returns:
        (…, F), equal to ``layer(rows).unflatten(0, groups).max(dim=-2).values``.
    """
    if torch.is_grad_enabled():
        pooled: Tensor = _LinearThenMax.apply(rows, layer.weight, layer.bias, groups[-1])
        return pooled.reshape(*groups[:-1], -1)
    # ONNX Runtime does a layer with its bias in one go; amax is faster than max forwards.
    return layer(rows).unflatten(0, groups).amax(dim=-2)
