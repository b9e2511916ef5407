"""Chunk transitions: what critics and transition model learn from, at every offset of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl100_trainer.data.dataset import EpisodeArrays, make_windows
from rl100_trainer.rl.returns import bootstrap_discounts, chunk_returns, returns_to_go
from rl100_trainer.spec import PolicySpec


@dataclass(frozen=True)
class Transitions:
    """M chunks (s, a, R, s') of several episodes.

    Attributes:
        states: (S, n_o, d_s), m or rad: every recorded step's observation; M <= S.
        clouds: (S, n_o, N, 3), m.
        images: (S, n_o, H, W, 3), uint8.
        times: (S,), part of the episode's steps that had gone by.
        actions: (S, n_c, d), task units, padded behind an end.
        rewards: (S,), discounted within the chunk.
        returns: (S,), discounted to the end of the episode: what came of it, whoever acted then.
        discounts: (S,), γ^n, 0 where the episode ended (time-outs too: critics know the time).
        following: (S,), row of s'; any row where the discount is 0.
        rows: (M,), the rows that are transitions: chunks that a break cuts off are none.
        starts: (E,), first row of each episode.
        episode: (S,), index of the episode.
        success: (E,) bool.
    """

    states: Tensor
    clouds: Tensor
    images: Tensor
    times: Tensor
    actions: Tensor
    rewards: Tensor
    returns: Tensor
    discounts: Tensor
    following: Tensor
    rows: Tensor
    starts: Tensor
    episode: Tensor
    success: Tensor

    def observed(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """States, clouds and images of some rows: what a policy encodes."""
        return self.states[rows], self.clouds[rows], self.images[rows]

    def to(self, device: torch.device) -> Transitions:
        """The same on another device."""
        return Transitions(**{name: value.to(device) for name, value in vars(self).items()})


def make_transitions(
    episodes: Sequence[EpisodeArrays], spec: PolicySpec, discount: float, max_steps: int
) -> Transitions:
    """Transitions of all episodes.

    Raises:
        ContractError: no episode, or shapes that aren't the task's.
    """
    windows = make_windows(episodes, spec, spec.n_action_steps)
    episodes = [episode for episode in episodes if len(episode)]  # as the windows are
    ends, last, times, starts, finals = [], [], [], [], []
    offset = 0
    for episode in episodes:
        length = len(episode)
        segment_end = np.searchsorted(episode.segment, episode.segment, side="right")
        ends.append(offset + segment_end)
        last.append(segment_end == length)
        times.append(np.arange(length, dtype=np.float32) / max_steps)
        starts.append(offset)
        offset += length
        finals.append(np.full(length, offset))
    end = torch.from_numpy(np.concatenate(ends)).long()
    rewards = torch.from_numpy(np.concatenate([e.rewards for e in episodes]))
    within, steps = chunk_returns(rewards, spec.n_action_steps, discount, end)
    following = torch.arange(len(windows)) + steps
    over = following >= end
    of_episode = torch.from_numpy(np.concatenate(last))
    return Transitions(
        states=windows.states,
        clouds=windows.clouds,
        images=windows.images,
        times=torch.from_numpy(np.concatenate(times)),
        actions=windows.actions,
        rewards=within,
        returns=returns_to_go(rewards, discount, torch.from_numpy(np.concatenate(finals))),
        discounts=bootstrap_discounts(steps, discount, over),
        following=torch.where(over, torch.arange(len(windows)), following),
        # Behind a break inside an episode nobody knows what followed.
        rows=torch.nonzero(~over | of_episode).squeeze(1),
        starts=torch.tensor(starts),
        episode=windows.episode,
        success=torch.tensor([e.outcome == "success" for e in episodes]),
    )
