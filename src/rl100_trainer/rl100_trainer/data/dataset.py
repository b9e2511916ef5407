"""Episodes as arrays, and the sliding windows that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import Observation
from torch import Tensor

from rl100_trainer.spec import PolicySpec

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]
HANDFUL = 5
NO_IMAGES: ImageArray = np.zeros((0, 0, 0, 0, 3), dtype=np.uint8)
MODE_TELEOP, MODE_POLICY, MODE_TAKEOVER = 1, 2, 3  # rl100_msgs/ExecutedAction


def no_images(*leading: int) -> ImageArray:
    """Images (…, 0, 0, 3) of observations that have none."""
    return np.zeros((*leading, 0, 0, 3), dtype=np.uint8)


def stack_observations(observations: Sequence[Observation]) -> dict[str, Any]:
    """``states``, ``clouds`` and ``images`` of successive observations, as EpisodeArrays' rows."""
    first = observations[0]
    frames = (len(observations), len(first.state))
    none = np.zeros((*frames, 0, 3), dtype=np.float32)
    clouds = [seen.cloud for seen in observations if seen.cloud is not None]
    images = [seen.image for seen in observations if seen.image is not None]
    return {
        "states": np.stack([seen.state for seen in observations]),
        "clouds": np.stack(clouds) if clouds else none,
        "images": np.stack(images) if images else no_images(*frames),
    }


@dataclass(frozen=True)
class EpisodeArrays:
    """One episode, one row per executed control step (T rows).

    Attributes:
        states: (T, n_o, d_s), m or rad: what the policy sees at each step.
        clouds: (T, n_o, N, 3), m, base frame; N is 0 where no cloud is observed.
        images: uint8 (T, n_o, H, W, 3), RGB; H and W are 0 where no image is observed.
        actions: (T, d), what was executed, task units.
        stamps: (T,), ns.
        segment: (T,) int32, counts up where steps are missing (the gateway held, say).
        decision: (T,) bool, a decision was taken at this step (its action is a chunk's first).
        mode: (T,) uint8, who acted, see rl100_msgs/ExecutedAction.
        rewards: (T,), of each step, unitless.
        outcome: success, failure or unknown.
        source: bundle version of the policy that acted, or the teleoperator's name.
        chains: (D, K + 1, h, d), normalised denoising chain of each decision, in the order of
            the decisions; None where no K-step policy acted.
        log_probs: (D, K), nats, behaviour log-probabilities of the chains.
    """

    episode_id: str
    states: FloatArray
    clouds: FloatArray
    actions: FloatArray
    stamps: NDArray[np.int64]
    segment: NDArray[np.int32]
    decision: NDArray[np.bool_]
    mode: NDArray[np.uint8]
    rewards: FloatArray
    outcome: str
    source: str = ""
    chains: FloatArray | None = None
    log_probs: FloatArray | None = None
    images: ImageArray = field(default_factory=lambda: NO_IMAGES)

    def __post_init__(self) -> None:
        if not self.images.size:
            object.__setattr__(self, "images", no_images(*self.states.shape[:2]))

    def __len__(self) -> int:
        return len(self.actions)


def simulated_episode(
    episode_id: str,
    *,
    states: FloatArray,
    clouds: FloatArray,
    actions: FloatArray,
    rewards: FloatArray,
    decision: NDArray[np.bool_],
    period_ns: int,
    mode: int,
    success: bool,
    source: str,
    chains: FloatArray | None = None,
    log_probs: FloatArray | None = None,
    images: ImageArray = NO_IMAGES,
) -> EpisodeArrays:
    """An episode of a simulated world that nothing interrupted; arguments as EpisodeArrays."""
    length = len(actions)
    return EpisodeArrays(
        episode_id=episode_id,
        states=states,
        clouds=clouds,
        actions=actions,
        stamps=np.arange(length, dtype=np.int64) * period_ns,
        segment=np.zeros(length, dtype=np.int32),
        decision=decision,
        mode=np.full(length, mode, dtype=np.uint8),
        rewards=rewards,
        outcome="success" if success else "failure",
        source=source,
        chains=chains,
        log_probs=log_probs,
        images=images,
    )


@dataclass(frozen=True)
class Windows:
    """Windows over episodes, M in all.

    Attributes:
        states: (M, n_o, d_s) float32, m or rad.
        clouds: (M, n_o, N, 3) float32, m.
        images: (M, n_o, H, W, 3) uint8.
        actions: (M, h, d) float32, task units; past an episode's (or segment's) end they are
            padded (no motion for delta spaces, the last action for absolute ones).
        valid: (M, h) bool, False for padding.
        episode: (M,) int64, index of the episode.
        weight: (M,) float32, how much each counts in imitation; 1 unless told otherwise.
    """

    states: Tensor
    clouds: Tensor
    images: Tensor
    actions: Tensor
    valid: Tensor
    episode: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def observed(self) -> tuple[Tensor, Tensor, Tensor]:
        """States, clouds and images: what a policy encodes."""
        return self.states, self.clouds, self.images

    def subset(self, index: Tensor | slice) -> Windows:
        """The windows with these indices (or where a mask is true)."""
        return Windows(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device) -> Windows:
        """The same windows on another device."""
        return Windows(*(getattr(self, f.name).to(device) for f in fields(self)))


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
    expected: dict[str, tuple[int, ...]] = {
        name: (steps, *shape) for name, shape in spec.observation_shapes.items()
    }
    expected["actions"] = (steps, spec.action_dim)
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
        torch.from_numpy(np.concatenate([e.images for e in episodes])),
        torch.from_numpy(np.concatenate([actions for actions, _ in padded])),
        torch.from_numpy(np.concatenate([valid for _, valid in padded])),
        torch.from_numpy(np.concatenate(numbers)).long(),
        torch.ones(sum(len(e) for e in episodes)),
    )


def split_episodes(
    windows: Windows, fraction: float, generator: torch.Generator
) -> tuple[Windows, Windows | None]:
    """Training and held-out windows, split by episodes; None when nothing is held out.

    Of a handful of episodes one is held out all the same.
    """
    count = int(windows.episode.max()) + 1
    held = min(max(round(fraction * count), int(count >= HANDFUL)), count - 1)
    if held == 0:
        return windows, None
    chosen = torch.randperm(count, generator=generator)[:held]
    mask = torch.isin(windows.episode, chosen)
    return windows.subset(~mask), windows.subset(mask)
