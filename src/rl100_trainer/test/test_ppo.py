"""The clipped surrogate: gradients derived by hand in each clip region, K folded equals a loop over
k, the policy gradient at ratio 1, the KL estimate of two normals, and advantages without spread.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_trainer.rl.ppo import (
    LARGEST_LOG_RATIO,
    approximate_kl,
    clipped_objective,
    normalise_advantages,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "active"),
    [
        (1.1, 2.0, True),  # within the clip
        (0.9, -2.0, True),
        (1.5, 2.0, False),  # good action, already likely enough
        (0.5, -2.0, False),  # bad action, already unlikely enough
        (0.5, 2.0, True),  # good action that became unlikely: pull it back
        (1.5, -2.0, True),  # bad action that became likely: push it away
    ],
)
def test_gradients_in_every_region(ratio: float, advantage: float, active: bool) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    gain = torch.tensor([advantage], dtype=torch.float64)
    loss, stats = clipped_objective(log_ratio, gain, 0.2)
    loss.backward()
    clipped = min(max(ratio, 0.8), 1.2)
    value = ratio if active else clipped
    assert float(loss.detach()) == pytest.approx(-value * advantage)
    # d(-r A)/d(log r) = -r A; a clipped ratio has no gradient.
    assert float(log_ratio.grad) == pytest.approx(-ratio * advantage if active else 0.0)
    assert float(stats.clip_fraction) == float(abs(ratio - 1.0) > 0.2)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 6), batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_folded_steps_equal_a_loop(steps: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_ratio = (0.3 * torch.randn(steps, batch, generator=generator)).requires_grad_()
    gain = torch.randn(batch, generator=generator, requires_grad=True)
    weights = torch.rand(steps, generator=generator)
    loss, stats = clipped_objective(log_ratio, gain, 0.1, weights)
    expected = torch.zeros(())
    for k in range(steps):
        ratio = log_ratio[k].exp()
        kept = torch.minimum(ratio * gain.detach(), ratio.clamp(0.9, 1.1) * gain.detach())
        expected = expected - weights[k] * kept.mean()
    torch.testing.assert_close(loss, expected)
    (folded,) = torch.autograd.grad(loss, log_ratio, retain_graph=True)
    (looped,) = torch.autograd.grad(expected, log_ratio)
    torch.testing.assert_close(folded, looped)
    assert torch.autograd.grad(loss, gain, allow_unused=True) == (None,)
    assert not stats.kl.requires_grad
    torch.testing.assert_close(stats.kl, stats.kl_steps.sum())
    single, _ = clipped_objective(log_ratio, gain, 0.1)
    same, _ = clipped_objective(log_ratio, gain, 0.1, torch.ones(steps))
    torch.testing.assert_close(single, same)


def test_at_ratio_one_it_is_the_policy_gradient() -> None:
    """A chain of K normal steps around a parameter: ∇ = -E[A Σ_k ∇ log π_k]."""
    torch.manual_seed(0)
    mean = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sigma, samples = 0.5, torch.randn(3, 40, dtype=torch.float64)
    gain = torch.randn(40, dtype=torch.float64)
    log_prob = torch.distributions.Normal(mean, sigma).log_prob(samples)
    loss, stats = clipped_objective(log_prob - log_prob.detach(), gain, 0.2)
    (slope,) = torch.autograd.grad(loss, mean)
    by_hand = -(gain * (samples - mean.detach()) / sigma**2).sum(dim=0).mean()
    torch.testing.assert_close(slope, by_hand)
    torch.testing.assert_close(loss.detach(), -3.0 * gain.mean())
    assert stats.as_dict() == {"kl": 0.0, "clip_fraction": 0.0, "ratio_mean": 1.0, "ratio_max": 1.0}


def test_kl_of_two_normals_summed_over_steps() -> None:
    torch.manual_seed(0)
    old = torch.distributions.Normal(0.0, 1.0)
    samples = old.sample((3, 100_000))
    shifts = torch.tensor([0.0, 0.1, 0.3])[:, None]
    log_ratio = torch.distributions.Normal(shifts, 1.0).log_prob(samples) - old.log_prob(samples)
    _, stats = clipped_objective(log_ratio, torch.zeros(100_000), 0.2)
    expected = shifts[:, 0].square() / 2.0
    torch.testing.assert_close(stats.kl_steps, expected, atol=5e-4, rtol=0.0)
    assert float(approximate_kl(torch.linspace(-1e-3, 1e-3, 11)).min()) >= 0.0


def test_a_far_sample_keeps_the_loss_finite() -> None:
    log_ratio = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    loss, stats = clipped_objective(log_ratio, torch.tensor([1.0, -1.0, 1.0]), 0.2)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(log_ratio.grad).all()
    assert float(stats.kl) > LARGEST_LOG_RATIO  # so that a KL stop sees it
    log_ratio = torch.tensor([[math.nan]])
    assert torch.isnan(clipped_objective(log_ratio, torch.ones(1), 0.2)[0])


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(K, B\)"):
        clipped_objective(torch.zeros(3, 4), torch.zeros(3), 0.2)
    with pytest.raises(ValueError, match=r"weights"):
        clipped_objective(torch.zeros(3, 4), torch.zeros(4), 0.2, torch.ones(4))
    with pytest.raises(ValueError, match="positive"):
        clipped_objective(torch.zeros(3, 4), torch.zeros(4), 0.0)


def test_advantages_are_normalised_and_limited() -> None:
    torch.manual_seed(0)
    advantages = 3.0 + 5.0 * torch.randn(1000)
    scaled = normalise_advantages(advantages)
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-2)
    assert float(scaled.std()) == pytest.approx(1.0, abs=1e-2)
    advantages[0] = 1e4
    assert float(normalise_advantages(advantages).max()) == 4.0
    assert float(normalise_advantages(advantages, limit=2.0).max()) == 2.0


def test_advantages_without_spread_teach_nothing() -> None:
    for flat in (torch.full((7,), 0.1), torch.zeros(5), torch.tensor([2.0])):
        assert float(normalise_advantages(flat).abs().max()) == 0.0
    assert torch.isnan(normalise_advantages(torch.tensor([1.0, math.nan]))).all()
