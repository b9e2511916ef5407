"""The interface of an in-process world: a Gymnasium environment that executes action chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


Seen = Mapping[str, NDArray[Any]]


class ChunkEnv(Protocol):
    """A ``gymnasium.Env`` whose action is a chunk.

    Observations are dicts: ``state`` (n_o, d_s) and ``cloud`` (n_o, N, 3), float32, oldest frame
    first; N is 0 where there is no cloud. A colour image is ``image`` (n_o, H, W, 3), uint8; where
    there is none it may be left out. ``step`` takes (n_c, d) in task units, executes the
    actions one by one and stops at the episode's end. Its ``info`` has ``steps`` (executed),
    ``rewards`` (n_c,), ``actions`` (n_c, d) (executed, zero beyond ``steps``) and ``success``;
    with ``dense`` also ``frames``, the observation before each executed step.
    """

    dense: bool
    max_steps: int

    def reset(self, *, seed: int) -> tuple[Seen, dict[str, Any]]:
        """Start the episode of ``seed``."""

    def step(self, action: FloatArray) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info."""


EnvFactory = Callable[[], ChunkEnv]


@dataclass
class EpisodeLog:
    """Every executed step of a running episode, as rows of :class:`EpisodeArrays`."""

    states: list[FloatArray] = field(default_factory=list)
    clouds: list[FloatArray] = field(default_factory=list)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    actions: list[FloatArray] = field(default_factory=list)
    rewards: list[np.float32] = field(default_factory=list)
    decision: list[bool] = field(default_factory=list)

    def add(self, info: dict[str, Any]) -> None:
        """Take in what one step of a dense environment told."""
        for index, frame in enumerate(info["frames"]):
            self.states.append(frame["state"])
            self.clouds.append(frame["cloud"])
            if "image" in frame:
                self.images.append(frame["image"])
            self.actions.append(info["actions"][index])
            self.rewards.append(info["rewards"][index])
            self.decision.append(index == 0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Rows stacked."""
        images = {"images": np.stack(self.images)} if self.images else {}
        return {
            **images,
            "states": np.stack(self.states),
            "clouds": np.stack(self.clouds),
            "actions": np.stack(self.actions),
            "rewards": np.asarray(self.rewards, dtype=np.float32),
            "decision": np.asarray(self.decision, dtype=np.bool_),
        }
