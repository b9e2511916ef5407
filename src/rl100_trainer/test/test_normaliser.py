"""The normaliser: round trips, limits of the task for delta actions, the data's range otherwise."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_trainer.networks.normaliser import Normaliser
from rl100_trainer.spec import PolicySpec

finite = st.floats(-5.0, 5.0, width=32)

SPEC = PolicySpec(
    n_obs_steps=1,
    state_dim=2,
    num_points=4,
    n_action_steps=1,
    action_low=(-5.0, -5.0),
    action_high=(5.0, 5.0),
    action_is_delta=False,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=8))
def test_actions_in_the_data_survive_a_round_trip(rows: list[tuple[float, float]]) -> None:
    actions = torch.tensor(rows)
    normaliser = Normaliser(SPEC)
    normaliser.fit(SPEC, torch.randn(3, 1, 2), torch.randn(3, 1, 4, 3), actions)
    inside = normaliser.action(actions)
    assert float(inside.abs().max()) <= 1.0 + 1e-4
    torch.testing.assert_close(normaliser.physical_action(inside), actions, atol=1e-3, rtol=1e-4)


def test_delta_actions_use_the_limits_of_the_task() -> None:
    spec = dataclasses.replace(
        SPEC, action_low=(-0.03, -0.01), action_high=(0.03, 0.01), action_is_delta=True
    )
    normaliser = Normaliser(spec)
    normaliser.fit(spec, torch.randn(3, 1, 2), torch.randn(3, 1, 4, 3), torch.zeros(3, 2))
    torch.testing.assert_close(
        normaliser.action(torch.tensor([0.03, -0.01])), torch.tensor([1.0, -1.0])
    )
    beyond = normaliser.physical_action(torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(beyond, torch.tensor([0.03, -0.01]))


def test_a_constant_state_does_not_divide_by_zero() -> None:
    normaliser = Normaliser(SPEC)
    normaliser.fit(SPEC, torch.full((5, 1, 2), 0.7), torch.zeros(5, 1, 4, 3), torch.zeros(5, 2))
    out = normaliser.state(torch.full((1, 1, 2), 0.7))
    assert out.abs().max() == pytest.approx(0.0, abs=1e-2)
    assert torch.isfinite(normaliser.points(torch.zeros(1, 1, 2), torch.zeros(1, 1, 4, 3))).all()
