"""Relative geometry of positions that a state holds, for critics that see no cloud.

From absolute coordinates a critic learns which states are good, but not which of two actions is
better in one state: that is decided by millimetres between tool, object and goal, differences of
large numbers. So they are given as differences, at two scales, and along and across the way that
the object still has to go (see ``recipes.md``, "Offline RL from states").
"""

from __future__ import annotations

import torch
from torch import Tensor

from rl100_trainer.spec import PolicySpec

#: m: a reach, and a contact. Far differences saturate at the second and stay apart at the first.
COARSE, FINE = 0.1, 0.01
SHORTEST = 1e-6


def _scaled(values: Tensor) -> Tensor:
    """m → unitless, at both scales (…, 2 n)."""
    return torch.cat([values / COARSE, (values / FINE).tanh()], dim=-1)


def _difference(vector: Tensor) -> Tensor:
    """(…, 3), m → its axes and length (…, 8), unitless."""
    return _scaled(torch.cat([vector, vector.norm(dim=-1, keepdim=True)], dim=-1))


def width(spec: PolicySpec, tools: int) -> int:
    """Values that :func:`relative_geometry` gives for ``tools`` positions of the tool."""
    state, moves = torch.zeros(1, spec.state_dim), torch.zeros(1, tools - 1, 3)
    return relative_geometry(spec, state, moves).shape[1]


def relative_geometry(spec: PolicySpec, state: Tensor, moves: Tensor | None) -> Tensor:
    """Differences between tool, objects and goal.

    Args:
        spec: has the tool, and objects or a goal.
        state: (B, d_s) of one frame, physical units.
        moves: (B, M, 3), m, where an action takes the tool, against where it is; None: nowhere.

    Returns:
        (B, ``width(spec, 1 + M)``), unitless.
    """
    tools = state[:, None, list(spec.relative_to)]
    if moves is not None:
        tools = torch.cat([tools, tools + moves], dim=1)
    objects = [state[:, None, list(place)] for place in spec.objects]
    goal = state[:, None, list(spec.goal)] if spec.goal else None
    others = objects if goal is None else [*objects, goal]
    parts = [_difference(other - tools) for other in others]
    whole = []
    if goal is not None:
        for place in objects:
            way = goal - place
            whole.append(_difference(way).flatten(1))
            parts.append(_scaled(_course(way, tools - place)))
    return torch.cat([*(part.flatten(1) for part in parts), *whole], dim=-1)


def _course(way: Tensor, offset: Tensor) -> Tensor:
    """``offset`` (B, T, 3) along and across the direction of ``way`` (B, 1, 3): (B, T, 2), m."""
    direction = way / way.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)
    along = (offset * direction).sum(dim=-1, keepdim=True)
    across = (offset - along * direction).norm(dim=-1, keepdim=True)
    return torch.cat([along, across], dim=-1)
