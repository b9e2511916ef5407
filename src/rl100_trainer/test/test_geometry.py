"""Relative geometry of critics: values against a plain computation, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.geometry import COARSE, FINE, relative_geometry, width
from rl100_trainer.networks.normaliser import Normaliser
from rl100_trainer.spec import PolicySpec


def spec_of(**changed: object) -> PolicySpec:
    known = {
        "n_obs_steps": 1,
        "state_dim": 10,
        "num_points": 0,
        "n_action_steps": 4,
        "action_low": (-1.0,) * 4,
        "action_high": (1.0,) * 4,
        "action_is_delta": True,
        "tool_step": 0.01,
        "relative_to": (0, 1, 2),
        "objects": ((3, 4, 5),),
        "goal": (7, 8, 9),
    }
    return PolicySpec(**(known | changed))  # type: ignore[arg-type]


def both_scales(values: list[float]) -> list[float]:
    return [v / COARSE for v in values] + [math.tanh(v / FINE) for v in values]


def plainly(spec: PolicySpec, state: np.ndarray, moves: np.ndarray) -> list[float]:
    """One sample with NumPy and loops, in the order of the documented features."""
    tool, goal = state[list(spec.relative_to)], state[list(spec.goal)]
    tools = [tool, *(tool + move for move in moves)]
    objects = [state[list(place)] for place in spec.objects]
    features: list[float] = []
    for other in [*objects, goal]:
        for at in tools:
            away = other - at
            features += both_scales([*away, float(np.linalg.norm(away))])
    whole: list[float] = []
    for place in objects:
        way = goal - place
        length = float(np.linalg.norm(way))
        whole += both_scales([*way, length])
        for at in tools:
            along = float((at - place) @ way) / length
            across = float(np.linalg.norm((at - place) - along * way / length))
            features += both_scales([along, across])
    return features + whole


@given(st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_values_are_those_of_a_plain_computation(seed: int, objects: int) -> None:
    rng = np.random.default_rng(seed)
    places = tuple((3 + 3 * i, 4 + 3 * i, 5 + 3 * i) for i in range(objects))
    last = 3 + 3 * objects
    spec = spec_of(state_dim=last + 3, objects=places, goal=(last, last + 1, last + 2))
    state, moves = rng.normal(0.0, 0.2, last + 3), rng.normal(0.0, 0.02, (2, 3))
    got = relative_geometry(spec, torch.tensor(state)[None], torch.tensor(moves)[None])
    assert got.shape == (1, width(spec, 3))
    np.testing.assert_allclose(got[0].numpy(), plainly(spec, state, moves), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("changed", [{}, {"objects": ()}, {"goal": ()}])
def test_moving_the_whole_scene_changes_nothing(changed: dict[str, object]) -> None:
    spec = spec_of(**changed)
    state = torch.randn(5, 10, dtype=torch.float64)
    moved = state.clone()
    for place in ((0, 1, 2), (3, 4, 5), (7, 8, 9)):
        moved[:, list(place)] += torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    here, there = (relative_geometry(spec, s, None) for s in (state, moved))
    assert here.shape == (5, width(spec, 1))
    torch.testing.assert_close(here, there)


def test_a_goal_that_is_reached_gives_finite_values_and_gradients() -> None:
    state = torch.zeros(1, 10, requires_grad=True)
    values = relative_geometry(spec_of(), state, torch.zeros(1, 2, 3))
    values.sum().backward()
    assert bool(values.isfinite().all())
    assert state.grad is not None and bool(state.grad.isfinite().all())


def test_q_sees_where_the_chunk_takes_the_tool() -> None:
    """Half a chunk and all of it, clipped to the limits, in metres."""
    spec = spec_of()
    critic = Critic(spec, Normaliser(spec), with_action=True)
    actions = torch.tensor([[[1.0, 0.0, 0.0, 0.5], [1.0, 5.0, 0.0, 0.0]] * 2])
    moves = critic._moves(actions)
    assert moves is not None
    torch.testing.assert_close(
        moves[0, :, :3], torch.tensor([[0.03, 0.01, 0.0], [0.04, 0.02, 0.0]])
    )
    observed = torch.zeros(1, 1, 10), torch.zeros(1, 1, 0, 3), torch.zeros(1, 1, 0, 0, 3)
    assert critic(*observed, torch.zeros(1), actions).shape == (1,)
