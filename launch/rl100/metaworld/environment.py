"""A Meta-World task as a Gymnasium environment that executes action chunks."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rl100.metaworld.cloud import CloudCamera
from rl100.metaworld.tasks import LONGEST_EPISODE, MAX_STEPS
from rl100.metaworld.world import ACTION_DIM, STATE_DIM, MetaWorld
from rl100_contracts.errors import ContractError

FloatArray = NDArray[np.float32]
Observed = Literal["state", "cloud"]

NUM_POINTS = 256
#: Of Meta-World's state: hand (3), gripper opening, goal (3), which the cloud doesn't show.
PROPRIOCEPTION = (0, 1, 2, 3, 36, 37, 38)


def state_dim(observation: Observed) -> int:
    """Values in the state of one frame (d_s)."""
    return STATE_DIM if observation == "state" else len(PROPRIOCEPTION)


class MetaWorldEnv(gymnasium.Env):
    """See ``rl100_trainer.rollouts.environment.ChunkEnv``.

    Args:
        task: ``push-v3`` or ``push``.
        observation: ``state``: Meta-World's 39 values, the goal among them, and no points;
            ``cloud``: points, hand position, gripper opening (0 to 1) and goal (7 values).
        n_action_steps: n_c, control steps in a chunk.
        n_obs_steps: n_o, frames in an observation.
        num_points: N of a cloud.
        max_steps: control steps (of 1/80 s) after which an episode times out.

    Raises:
        ContractError: no such task, Meta-World is not installed, or a number is out of range.
    """

    def __init__(
        self,
        task: str,
        observation: Observed = "state",
        n_action_steps: int = 4,
        n_obs_steps: int = 2,
        num_points: int = NUM_POINTS,
        max_steps: int = MAX_STEPS,
    ) -> None:
        if observation not in ("state", "cloud"):
            raise ContractError(f"observation '{observation}' is unknown: give state or cloud")
        for name, value in (("n_action_steps", n_action_steps), ("n_obs_steps", n_obs_steps)):
            if value < 1:
                raise ContractError(f"{name} is {value}: it must be at least 1")
        if not 1 <= max_steps <= LONGEST_EPISODE:
            raise ContractError(
                f"max_steps is {max_steps}: Meta-World's episodes have 1 to {LONGEST_EPISODE} steps"
            )
        self.dense = False
        self.max_steps = max_steps
        self.step_count = 0
        self.world = MetaWorld(task)
        self.n_action_steps, self.n_obs_steps = n_action_steps, n_obs_steps
        self._camera: CloudCamera | None = None
        points = num_points if observation == "cloud" else 0
        if observation == "cloud":
            self._camera = CloudCamera(self.world.mujoco, self.world.model, num_points)
        self._no_points = np.zeros((0, 3), dtype=np.float32)
        self._frames: deque[tuple[FloatArray, FloatArray]] = deque(maxlen=n_obs_steps)
        self._seen_at = -1
        self._over = True
        unbounded: dict[str, Any] = {"low": -np.inf, "high": np.inf, "dtype": np.float32}
        self.observation_space = spaces.Dict(
            state=spaces.Box(shape=(n_obs_steps, state_dim(observation)), **unbounded),
            cloud=spaces.Box(shape=(n_obs_steps, points, 3), **unbounded),
        )
        self.action_space = spaces.Box(-1.0, 1.0, (n_action_steps, ACTION_DIM), dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """Start the episode of ``seed`` (>= 0); None draws one."""
        super().reset(seed=seed)
        self.world.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self.step_count, self._seen_at, self._over = 0, -1, False
        self._frames.clear()
        return self.observe(), {}

    def observe(self) -> dict[str, FloatArray]:
        """What a policy sees now; the first frame stands in for those before the start."""
        self._look()
        first = self._frames[0]
        frames = [first] * (self.n_obs_steps - len(self._frames)) + list(self._frames)
        return {
            "state": np.stack([state for state, _ in frames]),
            "cloud": np.stack([cloud for _, cloud in frames]),
        }

    def act(self, action: NDArray[np.floating]) -> bool:
        """One control step with ``action`` (4,), within ±1; returns whether the task succeeded.

        For callers that decide at every step, as the scripted experts; ``step`` is for the rest.
        """
        if self._over:
            raise ContractError("the episode is over: call reset before the next step")
        succeeded = self.world.step(action)
        self.step_count += 1
        self._over = succeeded or self.step_count >= self.max_steps
        return succeeded

    def step(
        self, action: FloatArray
    ) -> tuple[dict[str, FloatArray], float, bool, bool, dict[str, Any]]:
        """Execute a chunk (n_c, 4), clipped to ±1, until the episode ends.

        Unless ``dense``, only the frames of the next observation are looked at; where success cuts
        a chunk short, older ones stand in, in an observation that nobody acts on.

        Raises:
            ContractError: the episode is over, or the chunk has another shape or isn't finite.
        """
        chunk = np.clip(np.asarray(action, dtype=np.float32), -1.0, 1.0)
        if chunk.shape != self.action_space.shape or not np.isfinite(chunk).all():
            raise ContractError(f"a chunk must be {self.action_space.shape} finite values")
        planned = min(self.n_action_steps, self.max_steps - self.step_count)
        rewards = np.zeros(self.n_action_steps, dtype=np.float32)
        frames: list[dict[str, FloatArray]] = []
        succeeded, steps = False, 0
        while steps == 0 or (steps < planned and not succeeded):
            if self.dense:
                frames.append(self.observe())
            elif steps > planned - self.n_obs_steps:
                self._look()
            succeeded = self.act(chunk[steps])
            rewards[steps] = float(succeeded)
            steps += 1
        chunk[steps:] = 0.0
        info: dict[str, Any] = {
            "steps": steps,
            "rewards": rewards,
            "actions": chunk,
            "success": succeeded,
        }
        if self.dense:
            info["frames"] = frames
        return self.observe(), float(rewards.sum()), succeeded, self._over and not succeeded, info

    def _look(self) -> None:
        """Take the present frame, unless it was taken already."""
        if self._seen_at == self.step_count:
            return
        self._seen_at = self.step_count
        state = self.world.state.astype(np.float32)
        if self._camera is None:
            self._frames.append((state, self._no_points))
        else:
            cloud = self._camera.take(self.world.data)
            self._frames.append((state[list(PROPRIOCEPTION)], cloud))
