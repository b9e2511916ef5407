"""Chunk returns and GAE equal naive loops; nothing from beyond a segment's end leaks in (the bug of
the authors' public code), and a terminal chunk cuts bootstrap and trace.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_trainer.rl.returns import (
    bootstrap_discounts,
    chunk_returns,
    generalised_advantages,
    returns_to_go,
)

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def ends_of(sizes: list[int]) -> torch.Tensor:
    ends = torch.tensor(sizes).cumsum(0)
    return torch.repeat_interleave(ends, torch.tensor(sizes))


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(1, 12), st.floats(0.0, 1.0), st.integers(0, 9))
def test_chunk_returns_equal_a_loop(
    sizes: list[int], chunk: int, discount: float, seed: int
) -> None:
    rewards = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(seed))
    ends = ends_of(sizes)
    returns, steps = chunk_returns(rewards, chunk, discount, ends)
    for t in range(len(rewards)):
        count = min(chunk, int(ends[t]) - t)
        expected = sum(discount**j * float(rewards[t + j]) for j in range(count))
        assert int(steps[t]) == count
        assert float(returns[t]) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(sizes=lengths, chunk=st.integers(1, 12))
def test_other_segments_add_nothing(sizes: list[int], chunk: int) -> None:
    rewards = torch.arange(1.0, sum(sizes) + 1.0)
    alone, _ = chunk_returns(rewards[: sizes[0]], chunk, 0.9, ends_of(sizes[:1]))
    rewards[sizes[0] :] = math.nan
    together, _ = chunk_returns(rewards, chunk, 0.9, ends_of(sizes))
    torch.testing.assert_close(together[: sizes[0]], alone, rtol=0.0, atol=0.0)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 20), chunk=st.integers(1, 7), discount=st.floats(0.5, 1.0))
def test_chunks_chained_by_their_bootstrap_give_the_whole_return(
    length: int, chunk: int, discount: float
) -> None:
    rewards = torch.randn(length, generator=torch.Generator().manual_seed(length)).double()
    returns, steps = chunk_returns(rewards, chunk, discount, torch.full((length,), length))
    total, weight, t = 0.0, 1.0, 0
    while t < length:
        total += weight * float(returns[t])
        weight *= discount ** int(steps[t])
        t += int(steps[t])
    whole = sum(discount**t * float(r) for t, r in enumerate(rewards))
    assert total == pytest.approx(whole, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(lengths, st.floats(0.0, 1.0), st.integers(0, 9))
def test_returns_to_go_are_those_of_a_chunk_without_end(
    sizes: list[int], discount: float, seed: int
) -> None:
    rewards = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(seed))
    ends = ends_of(sizes)
    longest, _ = chunk_returns(rewards, max(sizes), discount, ends)
    torch.testing.assert_close(
        returns_to_go(rewards, discount, ends), longest, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"\(T,\)"):
        returns_to_go(rewards, discount, ends[:-1])


def test_an_end_within_the_chunk_stops_the_bootstrap_and_a_time_limit_does_not() -> None:
    steps = torch.tensor([4, 4, 2])
    ended = bootstrap_discounts(steps, 0.9, torch.tensor([False, True, False]))
    torch.testing.assert_close(ended, torch.tensor([0.9**4, 0.0, 0.9**2]))


@pytest.mark.parametrize("ends", [[2, 2, 2], [1, 2, 4], [3, 3]])
def test_impossible_ends_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match=r"segment must end|must be \(T,\)"):
        chunk_returns(torch.zeros(3), 2, 0.9, torch.tensor(ends))
    with pytest.raises(ValueError, match="at least one step"):
        chunk_returns(torch.zeros(1), 0, 0.9, torch.tensor([1]))


def naive_advantages(
    rewards: torch.Tensor, values: torch.Tensor, discounts: torch.Tensor, trace: float
) -> list[float]:
    """Σ_l (Π γλ) δ_{t+l}, each written out."""
    result = []
    for t in range(len(rewards)):
        total, weight = 0.0, 1.0
        for s in range(t, len(rewards)):
            delta = float(rewards[s] + discounts[s] * values[s + 1] - values[s])
            total += weight * delta
            weight *= float(discounts[s]) * trace
        result.append(total)
    return result


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 12), trace=st.floats(0.0, 1.0), seed=st.integers(0, 9))
def test_advantages_equal_the_written_out_sum(count: int, trace: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, count + 1, generator=generator)
    rewards, discounts = rewards[:-1], torch.rand(count, generator=generator)
    discounts[torch.rand(count, generator=generator) < 0.2] = 0.0
    advantages, targets = generalised_advantages(rewards, values, discounts, trace)
    expected = torch.tensor(naive_advantages(rewards, values, discounts, trace))
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(targets, advantages + values[:-1])
    assert advantages.dtype == torch.float32


def test_limits_of_the_trace() -> None:
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 5.0, 7.0, 11.0])
    discounts = torch.full((3,), 0.5)
    one_step, _ = generalised_advantages(rewards, values, discounts, 0.0)
    torch.testing.assert_close(one_step, rewards + 0.5 * values[1:] - values[:-1])
    _, monte_carlo = generalised_advantages(rewards, values, discounts, 1.0)
    torch.testing.assert_close(
        monte_carlo[0], torch.tensor(1.0 + 0.5 * 2.0 + 0.25 * 4.0 + 0.125 * 11.0)
    )


def test_nothing_from_beyond_a_terminal_chunk() -> None:
    rewards, values = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25, math.nan])
    advantages, _ = generalised_advantages(rewards, values, torch.tensor([0.9, 0.0]), 0.95)
    torch.testing.assert_close(advantages[1], torch.tensor(1.75))
    assert torch.isfinite(advantages).all()
    with pytest.raises(ValueError, match="D \\+ 1"):
        generalised_advantages(rewards, values[:2], torch.tensor([0.9, 0.0]), 0.95)


def test_several_trajectories_of_one_length_are_kept_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, discounts = torch.rand(2, 5, 3, generator=generator)
    values = torch.rand(6, 3, generator=generator)
    together, _ = generalised_advantages(rewards, values, discounts, 0.9)
    for i in range(3):
        single, _ = generalised_advantages(rewards[:, i], values[:, i], discounts[:, i], 0.9)
        torch.testing.assert_close(together[:, i], single)
