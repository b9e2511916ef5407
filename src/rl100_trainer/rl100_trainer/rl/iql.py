"""Losses of implicit Q-learning (Kostrikov et al. 2022, eq. 5-6; algorithm.md §3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class IqlLosses(NamedTuple):
    """Losses to minimise, scalars, and the mean advantage min Q - V (no gradient)."""

    q: Tensor
    v: Tensor
    advantage: Tensor


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|ω - 1(u < 0)| u² of each difference u = Q - V (any shape, float), same shape.

    Its minimiser over V is the ω-expectile of Q: 0.5 is the mean, towards 1 the maximum.

    Raises:
        ValueError: an expectile that isn't within (0, 1).
    """
    if not 0.0 < expectile < 1.0:
        raise ValueError(f"an expectile lies between 0 and 1, not at {expectile}")
    below = (difference < 0.0).to(difference.dtype)
    return (expectile - below).abs() * difference.square()


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """R + γ^n V(s'), any one shape; where the discount is 0 the next value isn't looked at."""
    zero = torch.zeros_like(next_value)
    return reward + discount * torch.where(discount == 0.0, zero, next_value)


def mixed_target(bootstrapped: Tensor, recorded: Tensor, weight: float) -> Tensor:
    """(1 - w) (R + γ^n V(s')) + w G, any one shape: what Q learns, with the recorded return G.

    IQL's own target is w = 0. It passes a success on by one chunk at a time, so that after few
    optimiser steps Q knows nothing of what lies further away; G knows, but of the policy that
    recorded it, and with the noise of a single try.

    Raises:
        ValueError: a weight that isn't within [0, 1].
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"the recorded return's weight lies between 0 and 1, not at {weight}")
    return (1.0 - weight) * bootstrapped + weight * recorded


def iql_losses(
    q: Tensor, q_target: Tensor, v: Tensor, q_min: Tensor, expectile: float
) -> IqlLosses:
    """Losses of the Q ensemble and of V; no gradient flows into ``q_target`` and ``q_min``.

    Args:
        q: (2, B) float, predictions of the online twins (or more of them).
        q_target: (B,), see :func:`td_target` and :func:`mixed_target`.
        v: (B,), online V(s).
        q_min: (B,), the least of the *target* twins at (s, a) of the data.
        expectile: ω.

    Raises:
        ValueError: shapes that would be broadcast silently, or a bad expectile.
    """
    batch = v.shape
    if len(batch) != 1 or q.shape[1:] != batch or q_target.shape != batch or q_min.shape != batch:
        raise ValueError(
            f"q {tuple(q.shape)}, q_target {tuple(q_target.shape)}, v {tuple(batch)} and q_min "
            f"{tuple(q_min.shape)} must be (2, B), (B,), (B,) and (B,)"
        )
    difference = q_min.detach() - v
    q_loss = (q - q_target.detach()).square().mean(dim=1).sum()
    return IqlLosses(
        q_loss, expectile_loss(difference, expectile).mean(), difference.detach().mean()
    )


@torch.no_grad()
def polyak(target: nn.Module, online: nn.Module, rate: float) -> None:
    """target ← target + rate · (online - target), in place; buffers are copied.

    Raises:
        ValueError: a rate that isn't within (0, 1], or modules that aren't built alike.
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"a rate lies within (0, 1], not at {rate}")
    ours, theirs = dict(target.named_parameters()), dict(online.named_parameters())
    kept, new = dict(target.named_buffers()), dict(online.named_buffers())
    if ours.keys() != theirs.keys() or kept.keys() != new.keys():
        raise ValueError("target and online network don't have the same parameters and buffers")
    for name, parameter in ours.items():
        parameter.lerp_(theirs[name], rate)
    for name, buffer in kept.items():
        buffer.copy_(new[name])
