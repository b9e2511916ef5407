"""The push task as a Gymnasium environment that executes action chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rl100.direct_env import DirectEnv
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task, load_task

FloatArray = NDArray[np.float32]
Seen = dict[str, NDArray[Any]]


def observation_space(task: Task) -> spaces.Dict:
    """Space of an observation: state (n_o, d_s), cloud (n_o, N, 3) and, where the task observes
    one, image (n_o, H, W, 3)."""
    frames, observed = task.control.n_obs_steps, task.observation
    parts: dict[str, spaces.Space[Any]] = {
        "state": spaces.Box(-np.inf, np.inf, (frames, observed.state_dim), np.float32),
        "cloud": spaces.Box(-np.inf, np.inf, (frames, observed.num_points, 3), np.float32),
    }
    if observed.image_shape is not None:
        parts["image"] = spaces.Box(0, 255, (frames, *observed.image_shape, 3), np.uint8)
    return spaces.Dict(parts)


def _as_dict(observation: Observation) -> Seen:
    """Tensors by their names; without a cloud there is one of no points."""
    none = np.zeros((len(observation.state), 0, 3), dtype=np.float32)
    return {"cloud": none, **observation.tensors()}


class PushEnv(gymnasium.Env):
    """The simulated task with the cores of the ROS nodes; see ``rollouts.environment.ChunkEnv``."""

    def __init__(self, task: Task) -> None:
        control, action = task.control, task.action
        self.dense = False
        self.max_steps = task.episode.max_steps
        self.observation_space = observation_space(task)
        bounds = (np.asarray(b, dtype=np.float32) for b in (action.low, action.high))
        low, high = (np.tile(bound, (control.n_action_steps, 1)) for bound in bounds)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self._chunk, self._history = control.n_action_steps, control.n_obs_steps
        self.direct = DirectEnv(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Start the episode of ``seed``; None draws one."""
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        return _as_dict(self.direct.reset(chosen)), {}

    @property
    def step_count(self) -> int:
        """Control steps since the reset."""
        return self.direct.world.step_count

    def step(self, action: FloatArray) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Execute a chunk (n_c, d), task units, until the episode ends."""
        rewards = np.zeros(self._chunk, dtype=np.float32)
        executed = np.zeros_like(action, dtype=np.float32)
        frames: list[Seen] = []
        for index in range(self._chunk):
            if self.dense:
                frames.append(_as_dict(self.direct.observe()))
            # Only the frames of the next observation are looked at.
            sense = self.dense or index >= self._chunk - self._history
            step = self.direct.step(action[index], sense=sense)
            rewards[index], executed[index] = step.reward, step.shaped.action
            if step.terminated or step.truncated:
                break
        # An episode's last observation is nobody's: a frame that was skipped isn't made up for.
        last = self.direct.observe() if sense else self.direct.newest()
        info: dict[str, Any] = {
            "steps": index + 1,
            "rewards": rewards,
            "actions": executed,
            "success": step.terminated,
        }
        if self.dense:
            info["frames"] = frames
        return _as_dict(last), float(rewards.sum()), step.terminated, step.truncated, info


@dataclass(frozen=True)
class PushFactory:
    """Makes a push environment in a worker process."""

    task: str = "push"

    def __call__(self) -> PushEnv:
        """A new environment."""
        return PushEnv(load_task(self.task))
