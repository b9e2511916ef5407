"""A linear layer and the maximum over points: values and gradients are those of the two operations
one after the other, also of points that tie, and nothing is differentiated where nothing learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rl100_trainer.networks.pooling import linear_then_max


def dense(points: Tensor, layer: nn.Linear) -> Tensor:
    return layer(points).max(dim=-2).values


def ours_of(points: Tensor, layer: nn.Linear) -> Tensor:
    return linear_then_max(points.flatten(0, -2), points.shape[:-1], layer)


def gradients(function: object, points: Tensor, layer: nn.Linear, wanted: Tensor) -> list[Tensor]:
    leaf = points.clone().requires_grad_()
    pooled = function(leaf.relu(), layer)  # type: ignore[operator]
    return [pooled, *torch.autograd.grad((pooled * wanted).sum(), [leaf, *layer.parameters()])]


@pytest.mark.parametrize("shape", [(7, 5), (4, 7, 5), (3, 2, 7, 5), (2, 1, 1, 5)])
def test_values_and_gradients_are_those_of_linear_and_max(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 11).double()
    points = torch.randn(shape, dtype=torch.float64)
    wanted = torch.randn(*shape[:-2], 11, dtype=torch.float64)
    ours, oracle = (gradients(f, points, layer, wanted) for f in (ours_of, dense))
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_repeated_point_gets_the_gradient_once() -> None:
    """Padded clouds repeat points."""
    torch.manual_seed(1)
    layer = nn.Linear(3, 6)
    points = torch.randn(2, 4, 3).repeat(1, 3, 1)
    wanted = torch.randn(2, 6)
    ours, oracle = (gradients(f, points, layer, wanted) for f in (ours_of, dense))
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(
            one.unflatten(1, (3, 4)).sum(1) if one.shape == points.shape else one,
            other.unflatten(1, (3, 4)).sum(1) if other.shape == points.shape else other,
        )


def test_finite_differences_agree() -> None:
    torch.manual_seed(2)
    layer = nn.Linear(4, 5).double()
    points = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: ours_of(p, layer), (points,))


def test_the_same_values_without_gradients() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(4, 5)
    points = torch.randn(3, 2, 6, 4)
    with torch.no_grad():
        plain = ours_of(points, layer)
    learning = ours_of(points, layer)
    assert not plain.requires_grad and learning.requires_grad
    torch.testing.assert_close(plain, learning)
