"""Arrays in shared memory: what the environments' worker processes and the learner exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a batch of environments: n of them, frames, values, points, chunk, action, and
    height and width of an image (0, 0: none)."""

    environments: int
    n_obs_steps: int
    state_dim: int
    num_points: int
    n_action_steps: int
    action_dim: int
    image_shape: tuple[int, int] = (0, 0)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of each shared array."""
        n = self.environments
        chunk = (n, self.n_action_steps)
        return {
            "states": ((n, self.n_obs_steps, self.state_dim), np.float32),
            "clouds": ((n, self.n_obs_steps, self.num_points, 3), np.float32),
            "images": ((n, self.n_obs_steps, *self.image_shape, 3), np.uint8),
            "actions": ((*chunk, self.action_dim), np.float32),
            "rewards": (chunk, np.float32),
            "steps": ((n,), np.int32),
            "ended": ((n,), np.bool_),
            "success": ((n,), np.bool_),
            "command": ((n,), np.uint8),
            "seed": ((n,), np.int64),
        }


class SharedBatch:
    """The arrays of a :class:`BatchShape` in one block; ``name`` attaches to an existing one."""

    states: NDArray[np.float32]
    clouds: NDArray[np.float32]
    images: NDArray[np.uint8]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    steps: NDArray[np.int32]
    ended: NDArray[np.bool_]
    success: NDArray[np.bool_]
    command: NDArray[np.uint8]
    seed: NDArray[np.int64]

    def __init__(self, shape: BatchShape, name: str | None = None) -> None:
        layout, size = [], 0
        for key, (dims, dtype) in shape.arrays().items():
            layout.append((key, dims, dtype, size))
            length = int(np.prod(dims, dtype=np.int64)) * np.dtype(dtype).itemsize
            size += -(-length // ALIGNMENT) * ALIGNMENT
        self._owner = name is None
        self._memory = SharedMemory(name=name, create=self._owner, size=max(size, 1))
        self._names = [key for key, *_ in layout]
        for key, dims, dtype, start in layout:
            view: NDArray[Any] = np.ndarray(dims, dtype, self._memory.buf, start)
            setattr(self, key, view)

    @property
    def name(self) -> str:
        """Name under which another process attaches."""
        return self._memory.name

    @property
    def observed(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """States, clouds and images: what a policy encodes."""
        return self.states, self.clouds, self.images

    def set_observation(self, index: int, seen: Mapping[str, NDArray[Any]]) -> None:
        """Write what one environment sees."""
        self.states[index], self.clouds[index] = seen["state"], seen["cloud"]
        if "image" in seen:
            self.images[index] = seen["image"]

    def close(self) -> None:
        """Let go of the memory; its owner removes it."""
        for name in self._names:
            setattr(self, name, None)  # views keep the block open
        self._memory.close()
        if self._owner:
            self._memory.unlink()
