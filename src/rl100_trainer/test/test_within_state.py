"""The within-state diagnostic tells a critic that ranks chunks from one that only knows states."""

from __future__ import annotations

import math

import pytest
import torch

from rl100_trainer.rl.within_state import (
    between_state_correlation,
    diagnose,
    noise_ceiling,
    within_state_correlation,
)


def states_and_chunks(count: int = 60, chunks: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Value of each state, and of each chunk relative to it (mean 0 in each state)."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(count, 1, generator=generator)
    chunk = 0.2 * torch.randn(count, chunks, generator=generator)
    return state, chunk - chunk.mean(dim=1, keepdim=True)


def test_a_critic_that_knows_only_states_is_found_out() -> None:
    state, chunk = states_and_chunks()
    returns = state + chunk
    noise = 0.2 * torch.randn(returns.shape, generator=torch.Generator().manual_seed(1))
    blind = diagnose(state + noise, returns)
    assert blind.between > 0.9
    assert abs(blind.within) < 0.12
    assert blind.ranking_low < 0.5 < blind.ranking_high
    seeing = diagnose(state + chunk + 0.5 * noise, returns)
    assert seeing.within > 0.8 and seeing.ranking_low > 0.7
    perverse = diagnose(state - chunk, returns)
    assert perverse.within == pytest.approx(-1.0) and perverse.ranking == 0.0


def test_hand_computed() -> None:
    q = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 8.0], [9.0, 0.0, 4.0]])
    returns = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    result = diagnose(q, returns)
    # Third state: no spread. First: 2 of 2 pairs right; second: a tie and 1 right of 2.
    assert (result.states, result.pairs) == (2, 4)
    assert result.ranking == pytest.approx(3.5 / 4.0)
    assert result.ranking_low == pytest.approx(0.75) and result.ranking_high == pytest.approx(1.0)
    a = torch.tensor([-1.0, 0.0, 1.0, -1.0, -1.0, 2.0])
    b = torch.tensor([-1.0, -1.0, 2.0, -2.0, 1.0, 1.0]) / 3.0
    expected = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    assert within_state_correlation(q, returns) == pytest.approx(expected)
    means = torch.stack([q.mean(dim=1), returns.mean(dim=1)])
    assert between_state_correlation(q, returns) == pytest.approx(
        float(torch.corrcoef(means)[0, 1]), abs=1e-6
    )
    assert result.as_dict()["pairs"] == 4.0


def test_offsets_of_states_and_scale_do_not_matter() -> None:
    state, chunk = states_and_chunks()
    noise = torch.randn(chunk.shape, generator=torch.Generator().manual_seed(1))
    q = chunk + 0.2 * noise
    plain = within_state_correlation(q, chunk)
    assert within_state_correlation(3.0 * q + 100.0 * state, chunk - 7.0 * state) == pytest.approx(
        plain, abs=1e-4
    )


def test_a_perfect_critic_reaches_the_ceiling_of_noisy_tries() -> None:
    state, chunk = states_and_chunks(2000)
    noise = torch.randn(2000, 6, 3, generator=torch.Generator().manual_seed(1))
    tries = (state + chunk)[:, :, None] + 0.5 * noise
    perfect = diagnose(state + chunk, tries)
    # Reliability of three tries: .2² / (.2² + .5² / 3).
    assert perfect.ceiling == pytest.approx(math.sqrt(0.04 / (0.04 + 0.25 / 3.0)), abs=0.02)
    assert perfect.within == pytest.approx(perfect.ceiling, abs=0.03)
    assert noise_ceiling(0.5 * noise) < 0.2  # chance alone
    assert math.isnan(diagnose(state + chunk, state + chunk).ceiling)


def test_nothing_to_measure() -> None:
    flat = torch.full((4, 3), 0.1)
    spread = torch.arange(12.0).reshape(4, 3)
    nothing = diagnose(spread, flat)
    assert math.isnan(nothing.within) and math.isnan(nothing.ranking) and nothing.states == 0
    assert math.isnan(nothing.between)
    assert nothing.as_dict()["within"] is None  # JSON has no NaN
    constant = diagnose(flat, spread)
    assert constant.within == 0.0 and constant.ranking == 0.5
    with pytest.raises(ValueError, match=r"\(S, A\)"):
        diagnose(flat, flat[0])
