"""Does a critic rank the actions *within* a state? (recipes.md, "Offline RL from states")

PPO sees nothing but differences of Q within a state. A critic can know perfectly which states are
good (high correlation between states) and still be blind here, and then every update makes the
policy worse while the model-based evaluation rises.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rl100_contracts.loading import finite

ROUNDING = 1e-12  # of float64, with room for sums over many states


@dataclass(frozen=True)
class WithinState:
    """Result of :func:`diagnose`; NaN where there was nothing to measure.

    Attributes:
        within: correlation after removing each state's mean.
        ceiling: what ``within`` of a perfect critic would be: few tries of each chunk give returns
            that differ by chance (the root of their reliability, ICC(1, k), Shrout & Fleiss 1979).
        between: correlation of the states' means.
        ranking: part of the pairs of chunks of one state whose order Q gets right; ½ is chance.
        ranking_low, ranking_high: bootstrap 95 % interval of it, over states.
        states: states with spread in their returns, which are those that count within states.
        pairs: pairs of chunks with different returns.
    """

    within: float
    ceiling: float
    between: float
    ranking: float
    ranking_low: float
    ranking_high: float
    states: int
    pairs: int

    def as_dict(self) -> dict[str, float | None]:
        """For logs and JSON: None for what no state could tell, as where nothing ever succeeds."""
        return dict(finite({name: float(value) for name, value in asdict(self).items()}))


def _check(q: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
    if q.ndim != 2 or q.shape != returns.shape:
        raise ValueError(
            f"q {tuple(q.shape)} and returns {tuple(returns.shape)} must both be (S, A)"
        )
    # float64: the differences within a state may be small beside the values.
    return q.detach().double().cpu(), returns.detach().double().cpu()


def _with_spread(returns: Tensor) -> Tensor:
    return returns.amax(dim=1) > returns.amin(dim=1)


def _centred(values: Tensor, dim: int) -> Tensor:
    """Mean over ``dim`` removed; what is left of equal values is 0, not rounding."""
    rest = values - values.mean(dim=dim, keepdim=True)
    return torch.where(rest.abs() <= ROUNDING * values.abs(), torch.zeros_like(rest), rest)


def _correlation(a: Tensor, b: Tensor) -> float:
    """Of entries that have zero mean already; NaN if b, 0 if only a has no spread."""
    if b.numel() == 0 or not bool(b.abs().max() > 0.0):
        return math.nan
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale > 0.0 else 0.0


def within_state_correlation(q: Tensor, returns: Tensor) -> float:
    """Correlation over all chunks after removing each state's mean from both.

    States whose chunks all have the same return are left out: they can't tell. Noisy returns (few
    continuations per chunk) lower it, so it is a lower bound of the critic's true one.

    Args:
        q: (S, A), the critic's values of A chunks of the policy in each of S states.
        returns: (S, A), discounted Monte-Carlo returns of these chunks.

    Returns:
        -1…1; 0 for a critic without spread, NaN if no state has spread in its returns.

    Raises:
        ValueError: shapes that differ or aren't (S, A).
    """
    q, returns = _check(q, returns)
    some = _with_spread(returns)
    q, returns = q[some], returns[some]
    return _correlation(_centred(q, 1), _centred(returns, 1))


def between_state_correlation(q: Tensor, returns: Tensor) -> float:
    """Correlation of the states' means; arguments, result and errors as within states."""
    q, returns = _check(q, returns)
    return _correlation(_centred(q.mean(dim=1), 0), _centred(returns.mean(dim=1), 0))


def _ranked_pairs(q: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
    """Rightly ordered pairs (ties of Q count half) and pairs of each state, each (S,)."""
    first, second = torch.triu_indices(q.shape[1], q.shape[1], offset=1)
    truth = (returns[:, first] - returns[:, second]).sign()
    agreement = truth * (q[:, first] - q[:, second]).sign()
    counted = truth != 0.0
    right = ((agreement + 1.0) / 2.0 * counted).sum(dim=1)
    return right, counted.sum(dim=1).double()


def noise_ceiling(tries: Tensor) -> float:
    """Greatest correlation within states that means of such tries allow; NaN if they can't tell.

    Args:
        tries: (S, A, C), returns of C tries of each of A chunks in S states.
    """
    states, chunks, count = tries.shape
    if states == 0 or chunks < 2 or count < 2:
        return math.nan
    means = tries.mean(dim=2, keepdim=True)
    by_chance = float((tries - means).square().sum()) / (states * chunks * (count - 1))
    spread = float((means - means.mean(dim=1, keepdim=True)).square().sum())
    found = count * spread / (states * (chunks - 1))
    return math.sqrt(max(0.0, 1.0 - by_chance / found)) if found > 0.0 else math.nan


def diagnose(q: Tensor, returns: Tensor, *, resamples: int = 2000, seed: int = 0) -> WithinState:
    """All figures of a critic at once; arguments and errors as :func:`within_state_correlation`.

    Args:
        returns: (S, A), or (S, A, C) of C tries of each chunk.
        resamples: bootstrap draws of whole states (chunks of one state aren't independent).
        seed: of the bootstrap.
    """
    tries = returns.detach().double().cpu() if returns.ndim == 3 else None
    q, returns = _check(q, returns.double().mean(dim=2) if tries is not None else returns)
    some = _with_spread(returns)
    right, pairs = _ranked_pairs(q[some], returns[some])
    states = len(right)
    ranking = low = high = math.nan
    if states:
        ranking = float(right.sum() / pairs.sum())
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(states, (resamples, states), generator=generator)
        shares = right[drawn].sum(dim=1) / pairs[drawn].sum(dim=1)
        low, high = torch.quantile(shares, torch.tensor([0.025, 0.975]).double()).tolist()
    return WithinState(
        within=within_state_correlation(q, returns),
        ceiling=math.nan if tries is None else noise_ceiling(tries[some]),
        between=between_state_correlation(q, returns),
        ranking=ranking,
        ranking_low=low,
        ranking_high=high,
        states=states,
        pairs=int(pairs.sum()),
    )
