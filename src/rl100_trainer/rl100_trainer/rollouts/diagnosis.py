"""Does the critic rank actions within a state? Only a simulator can tell: it tries them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.transitions import make_transitions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics
from rl100_trainer.rl.within_state import WithinState, diagnose
from rl100_trainer.rollouts.source import decide
from rl100_trainer.rollouts.vector import VectorSource

STATES, CHUNKS, CONTINUATIONS = 24, 4, 3


def diagnose_critics(
    source: VectorSource,
    policy: DiffusionPolicy,
    critics: OfflineCritics,
    episodes: Sequence[EpisodeArrays],
    seeds: Sequence[int],
    max_steps: int,
    *,
    states: int = STATES,
    chunks: int = CHUNKS,
    continuations: int = CONTINUATIONS,
    seed: int = 0,
    on_state: Callable[[int, int], None] = lambda done, total: None,
) -> WithinState:
    """Compare Q with Monte-Carlo returns, within states and between them.

    Args:
        policy: the behaviour policy, which proposes the chunks and goes on after them.
        episodes: rollouts of it (with chains), and their ``seeds``.
        states: decisions that are looked at, at random.
        chunks: proposals at each.
        continuations: simulated ends of each proposal, whose mean is its return.
        on_state: told how many states are done, of how many; may raise to stop.

    Raises:
        ValueError: an episode without chains.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    spec, normaliser = policy.spec, policy.normaliser
    device = normaliser.state_mean.device
    places = [(e, d) for e, ep in enumerate(episodes) for d in range(int(ep.decision.sum()))]
    chosen = [places[i] for i in rng.choice(len(places), min(states, len(places)), replace=False)]
    values, returns = [], []
    for number, (index, decision) in enumerate(chosen):
        on_state(number, len(chosen))
        episode = episodes[index]
        if episode.chains is None:
            raise ValueError(f"episode {episode.episode_id} has no chains")
        row = int(np.flatnonzero(episode.decision)[decision])
        done = torch.from_numpy(episode.chains[:decision, -1]).to(device)
        prefix = policy.executed(done).cpu().numpy()
        proposed = decide(
            policy,
            [a[[row] * chunks] for a in (episode.states, episode.clouds, episode.images)],
            generator,
            sampler="k_step",
            stochastic=True,
        ).actions
        tried = source.continue_from(
            policy,
            [seeds[index]] * (chunks * continuations),
            [prefix] * (chunks * continuations),
            np.repeat(proposed, continuations, axis=0),
        )
        returns.append(tried.reshape(chunks, continuations))
        data = make_transitions([episode], spec, critics.config.discount, max_steps).to(device)
        rows = torch.full((chunks,), row, device=device)
        actions = normaliser.action(torch.from_numpy(proposed).to(device))
        values.append(_q(critics, (*data.observed(rows), data.times[rows]), actions).cpu())
    on_state(len(chosen), len(chosen))
    return diagnose(torch.stack(values), torch.from_numpy(np.stack(returns)), seed=seed)


@torch.no_grad()
def _q(critics: OfflineCritics, observed: Sequence[Tensor], actions: Tensor) -> Tensor:
    """Least of the twins (chunks,)."""
    return torch.minimum(*critics.q(*observed, actions))
