"""Returns of action chunks and generalised advantages between chunks (algorithm.md §3 and §5)."""

from __future__ import annotations

import torch
from torch import Tensor

from rl100_trainer.rl.iql import td_target


def chunk_returns(
    rewards: Tensor, chunk: int, discount: float, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Return and length of the chunk that begins at each step.

    R_t = Σ_{j<n} γ^j r_{t+j} with n = min(chunk, end - t). Steps past the end add nothing, also
    where rewards of another episode (or NaN) follow: the authors' code lacks this mask.

    Args:
        rewards: (T,) float, of episodes or segments one after the other.
        chunk: steps of a whole chunk, n_c.
        discount: γ of one control step.
        ends: (T,) long, index one past the last step of each step's segment.

    Returns:
        R (T,), dtype of the rewards, and n (T,) long: the bootstrap discount is γ^n.

    Raises:
        ValueError: a chunk below 1, shapes that differ or an end outside its data.
    """
    count, device = len(rewards), rewards.device
    if chunk < 1:
        raise ValueError(f"a chunk has at least one step, not {chunk}")
    if rewards.shape != (count,) or ends.shape != (count,):
        raise ValueError(f"rewards {tuple(rewards.shape)}, ends {tuple(ends.shape)} must be (T,)")
    now = torch.arange(count, device=device)
    if bool(((ends <= now) | (ends > count)).any()):
        raise ValueError("a segment must end after each of its steps and within the data")
    offsets = torch.arange(chunk, device=device)
    index = now[:, None] + offsets
    taken = rewards[index.clamp(max=count - 1)]
    # where, not a product: NaN times zero would still be NaN.
    taken = torch.where(index < ends[:, None], taken, torch.zeros_like(taken))
    weights = torch.pow(discount, offsets.to(rewards.dtype))
    return (taken * weights).sum(dim=1), (ends - now).clamp(max=chunk)


def returns_to_go(rewards: Tensor, discount: float, ends: Tensor) -> Tensor:
    """What each step led to: G_t = Σ_{t ≤ i < end} γ^{i-t} r_i.

    Args:
        rewards: (T,) float, of episodes one after the other.
        discount: γ of one control step.
        ends: (T,) long, index one past the last step of each step's episode.

    Returns:
        G (T,), dtype of the rewards.

    Raises:
        ValueError: shapes that differ.
    """
    if rewards.ndim != 1 or rewards.shape != ends.shape:
        raise ValueError(f"rewards {tuple(rewards.shape)}, ends {tuple(ends.shape)} must be (T,)")
    found, after = rewards.tolist(), 0.0
    for t, end in reversed(list(enumerate(ends.tolist()))):
        after = found[t] + (discount * after if t + 1 < end else 0.0)
        found[t] = after
    return torch.tensor(found, dtype=rewards.dtype, device=rewards.device)


def bootstrap_discounts(steps: Tensor, discount: float, terminal: Tensor) -> Tensor:
    """γ^n, and 0 where the task ended within the chunk: (T,) long, (T,) bool → (T,) float32.

    For critics that aren't told the time, a time limit isn't an end: give False there, and the
    last chunk keeps γ^n. Where they are told, as in this project, it is an end like any other.
    """
    powers = torch.pow(discount, steps.to(torch.float32))
    return torch.where(terminal, torch.zeros_like(powers), powers)


def generalised_advantages(
    rewards: Tensor, values: Tensor, discounts: Tensor, trace: float
) -> tuple[Tensor, Tensor]:
    """GAE over the D decisions of one trajectory (Schulman et al. 2016; algorithm.md §5).

    δ_t = R_t + γ^n V_{t+1} - V_t, A_t = δ_t + γ^n λ A_{t+1}: λ counts decisions, γ control steps.

    Args:
        rewards: (D,) float32, chunk returns.
        values: (D + 1,) float32, V at each decision and after the last; a value after a terminal
            chunk isn't looked at.
        discounts: (D,) float32, γ^n of each chunk, 0 where it ended the task (see
            :func:`bootstrap_discounts`).
        trace: λ, 0…1.

    Returns:
        Advantages (D,) and value targets A + V (D,), float32, without gradient. Equal trailing
        dimensions (several trajectories of one length) are kept.

    Raises:
        ValueError: shapes that don't fit.
    """
    count = len(rewards)
    if discounts.shape != rewards.shape or values.shape != (count + 1, *rewards.shape[1:]):
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, discounts {tuple(discounts.shape)} and values "
            f"{tuple(values.shape)} must be (D,), (D,) and (D + 1,)"
        )
    rewards, values, discounts = rewards.detach(), values.detach(), discounts.detach()
    errors = td_target(rewards, discounts, values[1:]) - values[:-1]
    advantages = torch.empty_like(errors)
    after = errors.new_zeros(errors.shape[1:])
    for t in range(count - 1, -1, -1):
        after = errors[t] + discounts[t] * trace * after
        advantages[t] = after
    return advantages, advantages + values[:-1]
