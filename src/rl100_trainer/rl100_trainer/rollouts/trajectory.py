"""A run of successive decisions: what on-policy learning consumes, wherever it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl100_contracts.errors import ContractError
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.rl.returns import chunk_returns

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Trajectory:
    """D decisions in a row of one episode.

    Attributes:
        states: (D + 1, n_o, d_s), m or rad; the last row is the observation after the last chunk.
        clouds: (D + 1, n_o, N, 3), m.
        images: (D + 1, n_o, H, W, 3), uint8.
        times: (D + 1,), part of the episode's steps that had gone by.
        chains: (D, K + 1, h, d), normalised.
        log_probs: (D, K), nats, of the policy that acted.
        rewards: (D,), discounted within each chunk.
        steps: (D,) control steps that each chunk was executed for.
        ended: the episode is over, so that nothing is bootstrapped behind the last chunk. A
            time-out is an end too: critics are told the time.
    """

    states: FloatArray
    clouds: FloatArray
    images: NDArray[np.uint8]
    times: FloatArray
    chains: FloatArray
    log_probs: FloatArray
    rewards: FloatArray
    steps: NDArray[np.int64]
    ended: bool

    def __len__(self) -> int:
        return len(self.rewards)

    def discounts(self, discount: float) -> Tensor:
        """γ^n of each chunk (D,), 0 behind an episode's end."""
        powers = torch.as_tensor(discount) ** torch.from_numpy(self.steps).float()
        if self.ended:
            powers[-1] = 0.0
        return powers


def trajectory_of_episode(
    episode: EpisodeArrays, discount: float, chunk: int, max_steps: int
) -> Trajectory:
    """The decisions of a recorded episode.

    Raises:
        ContractError: the episode's chains were not recorded.
    """
    rows = np.flatnonzero(episode.decision)
    if episode.chains is None or episode.log_probs is None or len(episode.chains) != len(rows):
        raise ContractError(
            f"episode {episode.episode_id}: has no denoising chain for each of its decisions: "
            "record rollouts of the K-step policy with stochastic:=true"
        )
    ends = torch.from_numpy(np.append(rows[1:], len(episode)))
    per_step = torch.full((len(episode),), len(episode), dtype=torch.long)
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        per_step[row:end] = end
    returns, lengths = chunk_returns(torch.from_numpy(episode.rewards), chunk, discount, per_step)
    last = np.append(rows, len(episode) - 1)  # nobody looks behind an episode's end
    return Trajectory(
        states=episode.states[last],
        clouds=episode.clouds[last],
        images=episode.images[last],
        times=np.append(rows, len(episode)).astype(np.float32) / np.float32(max_steps),
        chains=episode.chains,
        log_probs=episode.log_probs,
        rewards=returns[rows].numpy(),
        steps=lengths[rows].numpy(),
        ended=True,
    )


OBSERVED = ("states", "clouds", "images")


def stack(trajectories: Sequence[Trajectory], name: str, *, last: bool = False) -> Tensor:
    """One attribute of all trajectories in a row; ``last`` keeps the row after the last chunk."""
    parts = [getattr(t, name) for t in trajectories]
    longer = name in (*OBSERVED, "times") and not last
    return torch.from_numpy(np.concatenate([p[:-1] if longer else p for p in parts]))
