"""Episodes as arrays, and the sliding windows that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rl100_contracts.errors import ContractError
from torch import Tensor

from rl100_trainer.spec import PolicySpec

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EpisodeArrays:
    """One episode, one row per executed control step (T rows).

    Attributes:
        states: (T, n_o, d_s), m or rad: what the policy sees at each step.
        clouds: (T, n_o, N, 3), m, base frame.
        actions: (T, d), what was executed, task units.
        stamps: (T,), ns.
        segment: (T,) int32, counts up where steps are missing (the gateway held, say).
        decision: (T,) bool, a decision was taken at this step (its action is a chunk's first).
        mode: (T,) uint8, who acted, see rl100_msgs/ExecutedAction.
        outcome: success, failure or unknown.
        source: bundle version of the policy that acted, or the teleoperator's name.
    """

    episode_id: str
    states: FloatArray
    clouds: FloatArray
    actions: FloatArray
    stamps: NDArray[np.int64]
    segment: NDArray[np.int32]
    decision: NDArray[np.bool_]
    mode: NDArray[np.uint8]
    outcome: str
    source: str = ""

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Windows:
    """Windows over episodes, M in all.

    Attributes:
        states: (M, n_o, d_s) float32, m or rad.
        clouds: (M, n_o, N, 3) float32, m.
        actions: (M, h, d) float32, task units; past an episode's (or segment's) end they are
            padded (no motion for delta spaces, the last action for absolute ones).
        valid: (M, h) bool, False for padding.
        episode: (M,) int64, index of the episode.
    """

    states: Tensor
    clouds: Tensor
    actions: Tensor
    valid: Tensor
    episode: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def subset(self, index: Tensor) -> Windows:
        """The windows with these indices (or where a mask is true)."""
        return Windows(
            self.states[index],
            self.clouds[index],
            self.actions[index],
            self.valid[index],
            self.episode[index],
        )

    def to(self, device: torch.device) -> Windows:
        """The same windows on another device."""
        return Windows(
            self.states.to(device),
            self.clouds.to(device),
            self.actions.to(device),
            self.valid.to(device),
            self.episode.to(device),
        )


def segments(stamps: NDArray[np.int64], period_ns: int) -> NDArray[np.int32]:
    """Segment of each step (T,): a new one begins after a gap of over one and a half periods."""
    gaps = np.diff(stamps, prepend=stamps[:1]) > 1.5 * period_ns
    return np.cumsum(gaps).astype(np.int32)


def _padded_actions(
    episode: EpisodeArrays, horizon: int, is_delta: bool
) -> tuple[FloatArray, NDArray[np.bool_]]:
    length = len(episode)
    # Last step of each step's segment: a window must not reach into the next one.
    last = np.searchsorted(episode.segment, episode.segment, side="right") - 1
    index = np.arange(length)[:, None] + np.arange(horizon)[None, :]
    valid = index <= last[:, None]
    windows = episode.actions[np.minimum(index, last[:, None])]
    if is_delta:
        windows = np.where(valid[:, :, None], windows, np.float32(0.0))
    return windows.astype(np.float32), valid


def _check(episode: EpisodeArrays, spec: PolicySpec) -> None:
    steps = len(episode)
    expected = {
        "states": (steps, spec.n_obs_steps, spec.state_dim),
        "clouds": (steps, spec.n_obs_steps, spec.num_points, 3),
        "actions": (steps, spec.action_dim),
    }
    for name, shape in expected.items():
        found = getattr(episode, name).shape
        if found != shape:
            raise ContractError(
                f"episode {episode.episode_id}: {name} have shape {found}, the task needs {shape}"
            )


def make_windows(episodes: Sequence[EpisodeArrays], spec: PolicySpec, horizon: int) -> Windows:
    """One window of ``horizon`` actions at every step of every episode.

    Raises:
        ContractError: no episode, or shapes that aren't the task's.
    """
    episodes = [episode for episode in episodes if len(episode)]
    if not episodes:
        raise ContractError("there is no episode to train on: record some, or widen the filter")
    for episode in episodes:
        _check(episode, spec)
    padded = [_padded_actions(e, horizon, spec.action_is_delta) for e in episodes]
    numbers = [np.full(len(e), i) for i, e in enumerate(episodes)]
    return Windows(
        torch.from_numpy(np.concatenate([e.states for e in episodes])),
        torch.from_numpy(np.concatenate([e.clouds for e in episodes])),
        torch.from_numpy(np.concatenate([actions for actions, _ in padded])),
        torch.from_numpy(np.concatenate([valid for _, valid in padded])),
        torch.from_numpy(np.concatenate(numbers)).long(),
    )


def split_episodes(
    windows: Windows, fraction: float, generator: torch.Generator
) -> tuple[Windows, Windows | None]:
    """Training and held-out windows, split by episodes; None when nothing is held out."""
    count = int(windows.episode.max()) + 1
    held = min(round(fraction * count), count - 1)
    if held == 0:
        return windows, None
    chosen = torch.randperm(count, generator=generator)[:held]
    mask = torch.isin(windows.episode, chosen)
    return windows.subset(~mask), windows.subset(mask)
