"""Chunk transitions equal a loop that walks through each recording and knows nothing of tensors.

Pins: the reward, γ^n and next state of a chunk at every offset; behind an episode's end nothing is
bootstrapped, behind a time-out's neither (critics are told the time); a chunk that a break in the
recording cuts off is no transition, for nobody knows what followed it; nothing of the next episode
or segment leaks in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.errors import ContractError
from rl100_trainer.data.dataset import EpisodeArrays, segments
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.testing import PERIOD_NS, REACH_SPEC

MAX_STEPS = 8
GAP = 3  # periods between two segments

# Steps of each segment, and the verdict.
RECORDINGS: tuple[tuple[tuple[int, ...], str], ...] = (
    ((7,), "success"),
    ((MAX_STEPS,), "failure"),  # timed out
    ((4, 4), "success"),
    ((1, 2, 3), "failure"),
    ((2,), "success"),  # shorter than a chunk of three
    ((5, 1), "unknown"),
)


def recording(number: int, parts: tuple[int, ...], outcome: str) -> EpisodeArrays:
    """An episode whose every row can be told from all others by its state, action and reward."""
    length = sum(parts)
    rng = np.random.default_rng([number, *parts])
    states = np.zeros((length, 1, 4), dtype=np.float32)
    states[:, 0, 0], states[:, 0, 1] = number, np.arange(length)
    first = np.isin(np.arange(length), np.cumsum(parts)[:-1])
    stamps = np.cumsum(np.where(first, GAP, 1)).astype(np.int64) * PERIOD_NS
    return EpisodeArrays(
        episode_id=f"episode{number}",
        states=states,
        clouds=np.zeros((length, 1, 0, 3), dtype=np.float32),
        actions=rng.uniform(-0.2, 0.2, (length, 2)).astype(np.float32),
        stamps=stamps,
        segment=segments(stamps, PERIOD_NS),
        decision=np.ones(length, dtype=np.bool_),
        mode=np.ones(length, dtype=np.uint8),
        rewards=rng.normal(size=length).astype(np.float32),
        outcome=outcome,
    )


def recordings(plan: tuple[tuple[tuple[int, ...], str], ...]) -> list[EpisodeArrays]:
    return [recording(number, parts, outcome) for number, (parts, outcome) in enumerate(plan)]


@dataclass
class Walked:
    """One chunk, found by walking; ``following`` None: the episode ended."""

    row: int
    rewards: float
    discount: float
    following: int | None
    actions: list[np.ndarray]


def walk(episode: EpisodeArrays, offset: int, chunk: int, gamma: float) -> list[Walked]:
    """The transitions of one episode whose first row is ``offset``."""
    found = []
    for start in range(len(episode)):
        total, now, broken = 0.0, start, False
        seen: list[np.ndarray] = []
        while len(seen) < chunk and now < len(episode):
            total += gamma ** len(seen) * float(episode.rewards[now])
            seen.append(episode.actions[now])
            now += 1
            # What comes a gap later isn't what this step led to.
            if now < len(episode):
                broken = episode.stamps[now] - episode.stamps[now - 1] != PERIOD_NS
            if broken:
                break
        if broken:
            continue
        over = now == len(episode)
        found.append(
            Walked(
                offset + start,
                total,
                0.0 if over else gamma ** len(seen),
                None if over else offset + now,
                seen,
            )
        )
    return found


def check(
    episodes: list[EpisodeArrays], data: Transitions, chunk: int, gamma: float, *, delta: bool
) -> None:
    offsets = [sum(len(e) for e in episodes[:i]) for i in range(len(episodes))]
    assert data.starts.tolist() == offsets
    walked = [w for e, at in zip(episodes, offsets, strict=True) for w in walk(e, at, chunk, gamma)]
    assert data.rows.tolist() == [w.row for w in walked]
    for w in walked:
        assert float(data.rewards[w.row]) == pytest.approx(w.rewards, abs=1e-5)
        assert float(data.discounts[w.row]) == pytest.approx(w.discount, abs=1e-6)
        if w.following is not None:
            assert int(data.following[w.row]) == w.following
        rest = np.zeros(2, dtype=np.float32) if delta else w.actions[-1]
        padded = [*w.actions, *[rest] * (chunk - len(w.actions))]
        np.testing.assert_array_equal(data.actions[w.row], np.stack(padded))
    # Whatever it is where nothing is bootstrapped, it is read all the same.
    assert set(data.following.tolist()) <= set(range(len(data.times)))


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_transitions_equal_a_walk_through_each_recording(chunk: int, delta: bool) -> None:
    spec = replace(REACH_SPEC, n_action_steps=chunk, action_is_delta=delta)
    episodes = recordings(RECORDINGS)
    data = make_transitions(episodes, spec, 0.9, MAX_STEPS)
    check(episodes, data, chunk, 0.9, delta=delta)
    # Single steps are cut off too: the step behind a gap isn't what the one before it led to.
    assert 0 < len(data.rows) < len(data.times)


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(
        st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4
    ),
    chunk=st.integers(1, 4),
    gamma=st.floats(0.1, 0.99),
)
def test_transitions_of_any_recordings(
    plan: list[tuple[int, ...]], chunk: int, gamma: float
) -> None:
    spec = replace(REACH_SPEC, n_action_steps=chunk)
    episodes = recordings(tuple((parts, "failure") for parts in plan))
    check(episodes, make_transitions(episodes, spec, gamma, 15), chunk, gamma, delta=True)


def test_numbers_worked_out_by_hand() -> None:
    """γ = 1/2, chunks of two: three steps to a success, then 2 + 2 steps with a gap, failed."""
    solved, failed = recordings((((3,), "success"), ((2, 2), "failure")))
    solved = replace(solved, rewards=np.array([1, 2, 4], dtype=np.float32))
    failed = replace(failed, rewards=np.array([8, 16, 32, 64], dtype=np.float32))
    data = make_transitions([solved, failed], REACH_SPEC, 0.5, 4)
    rows = [0, 1, 2, 5, 6]  # 3 and 4 reach the gap: their chunks' ends were not seen
    assert data.rows.tolist() == rows
    assert data.rewards[rows].tolist() == [2.0, 4.0, 4.0, 64.0, 64.0]
    assert data.discounts[rows].tolist() == [0.25, 0.0, 0.0, 0.0, 0.0]
    assert int(data.following[0]) == 2
    assert data.states[data.following[0], 0, :2].tolist() == [0.0, 2.0]
    # To the end of the episode, over the gap: the reward came, whatever was lost in between.
    assert data.returns.tolist() == [3.0, 4.0, 4.0, 32.0, 48.0, 64.0, 64.0]
    assert data.times.tolist() == [0.0, 0.25, 0.5, 0.0, 0.25, 0.5, 0.75]
    assert data.episode.tolist() == [0] * 3 + [1] * 4
    assert data.starts.tolist() == [0, 3]
    assert data.success.tolist() == [True, False]


def test_a_time_out_bootstraps_no_more_than_a_success() -> None:
    """Critics know the time: behind the last step that a task allows there is nothing to come."""
    for outcome in ("success", "failure", "unknown"):
        data = make_transitions([recording(0, (MAX_STEPS,), outcome)], REACH_SPEC, 0.9, MAX_STEPS)
        ends = [False] * (MAX_STEPS - 2) + [True, True]  # the last two chunks of two reach the end
        assert (data.discounts == 0.0).tolist() == ends
        assert data.rows.tolist() == list(range(MAX_STEPS))


def test_other_episodes_add_nothing() -> None:
    """Also where a neighbour's rewards are NaN."""
    episodes = recordings(RECORDINGS)
    neighbour = replace(episodes[0], rewards=np.full(len(episodes[0]), np.nan, dtype=np.float32))
    for own in episodes[1:]:
        alone = make_transitions([own], REACH_SPEC, 0.9, MAX_STEPS)
        between = make_transitions([neighbour, own, neighbour], REACH_SPEC, 0.9, MAX_STEPS)
        first = len(neighbour)
        part = slice(first, first + len(own))
        for name in ("rewards", "returns", "discounts", "times"):
            assert torch.equal(getattr(between, name)[part], getattr(alone, name))
        kept = between.rows[(between.rows >= first) & (between.rows < part.stop)]
        assert (kept - first).tolist() == alone.rows.tolist()
        assert (between.following[part] - first).tolist() == alone.following.tolist()


def test_episodes_of_another_shape_are_refused() -> None:
    with pytest.raises(ContractError, match="there is no episode to train on"):
        make_transitions([], REACH_SPEC, 0.9, MAX_STEPS)
    wrong = replace(recording(0, (3,), "success"), actions=np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ContractError, match=r"episode0: actions have shape \(3, 3\)"):
        make_transitions([wrong], REACH_SPEC, 0.9, MAX_STEPS)
