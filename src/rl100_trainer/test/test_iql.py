"""IQL: V is driven to the expectile of Q, targets carry no gradient and stop at terminal steps, and
Polyak averaging moves parameters and copies buffers.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rl100_trainer.rl.iql import expectile_loss, iql_losses, mixed_target, polyak, td_target


def expectile(values: torch.Tensor, level: float) -> float:
    """Root of ω E[(x - v)+] = (1 - ω) E[(v - x)+], by bisection."""
    low, high = float(values.min()), float(values.max())
    for _ in range(80):
        v = (low + high) / 2.0
        above, below = (values - v).clamp(min=0.0).mean(), (v - values).clamp(min=0.0).mean()
        low, high = (v, high) if level * above > (1.0 - level) * below else (low, v)
    return low


@settings(max_examples=25, deadline=None)
@given(level=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_the_minimiser_is_the_expectile(level: float, seed: int) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    at = torch.tensor(expectile(values, level), dtype=torch.float64, requires_grad=True)
    loss = expectile_loss(values - at, level).mean()
    (slope,) = torch.autograd.grad(loss, at)
    assert float(slope) == pytest.approx(0.0, abs=1e-9)
    for other in (at.detach() - 0.1, at.detach() + 0.1):
        assert float(expectile_loss(values - other, level).mean()) > float(loss.detach())


def test_closed_forms() -> None:
    loss = expectile_loss(torch.tensor([2.0, -2.0, 0.0]), 0.7)
    torch.testing.assert_close(loss, torch.tensor([0.7 * 4.0, 0.3 * 4.0, 0.0]))
    values = torch.randn(20)
    assert expectile(values, 0.5) == pytest.approx(float(values.mean()), abs=1e-5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        expectile_loss(values, 1.0)


def test_a_terminal_step_has_no_next_value() -> None:
    target = td_target(
        torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.0]), torch.tensor([10.0, math.nan])
    )
    torch.testing.assert_close(target, torch.tensor([10.0, 2.0]))


def test_the_recorded_return_mixes_in_by_its_weight() -> None:
    bootstrapped, recorded = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5])
    for weight, wanted in ((0.0, [1.0, 0.0]), (0.25, [0.75, 0.125]), (1.0, [0.0, 0.5])):
        mixed = mixed_target(bootstrapped, recorded, weight)
        torch.testing.assert_close(mixed, torch.tensor(wanted))
    with pytest.raises(ValueError, match="between 0 and 1"):
        mixed_target(bootstrapped, recorded, 1.5)


def test_losses_and_where_gradients_go() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    v = torch.tensor([0.5, 3.0], requires_grad=True)
    q_target = torch.tensor([2.0, 2.0], requires_grad=True)
    q_min = torch.tensor([1.5, 2.0], requires_grad=True)
    losses = iql_losses(q, q_target, v, q_min, 0.7)
    # twins: ((1-2)² + 0)/2 and ((0-2)² + (4-2)²)/2; V: (.7·1² + .3·(-1)²)/2.
    assert float(losses.q.detach()) == pytest.approx(0.5 + 4.0)
    assert float(losses.v.detach()) == pytest.approx((0.7 + 0.3) / 2.0)
    assert float(losses.advantage) == pytest.approx(0.0)
    (losses.q + losses.v).backward()
    assert q_target.grad is None and q_min.grad is None
    torch.testing.assert_close(v.grad, torch.tensor([-0.7, 0.3]))
    torch.testing.assert_close(q.grad, torch.tensor([[-1.0, 0.0], [-2.0, 2.0]]))


def test_a_column_of_values_is_refused() -> None:
    q, flat = torch.zeros(2, 5), torch.zeros(5)
    with pytest.raises(ValueError, match=r"\(2, B\)"):
        iql_losses(q, flat, flat[:, None], flat, 0.7)
    with pytest.raises(ValueError, match=r"\(2, B\)"):
        iql_losses(q, flat[:, None], flat, flat, 0.7)


def test_polyak_moves_parameters_and_copies_buffers() -> None:
    torch.manual_seed(0)
    target, online = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        online.weight.fill_(3.0)
    online(torch.randn(8, 3))
    polyak(target, online, 0.25)
    torch.testing.assert_close(target.weight, torch.full((3,), 1.5))
    torch.testing.assert_close(target.running_mean, online.running_mean)
    assert int(target.num_batches_tracked) == 1
    torch.testing.assert_close(online.weight, torch.full((3,), 3.0))
    polyak(target, online, 1.0)
    torch.testing.assert_close(target.weight, online.weight)
    with pytest.raises(ValueError, match="same parameters"):
        polyak(nn.Linear(3, 3), online, 0.5)
    with pytest.raises(ValueError, match="rate"):
        polyak(target, online, 0.0)
