"""The smallest task with which the whole learner can be tried: a point that must reach a goal.

No robot, no ROS: 2-D position and goal are observed, actions are steps. For tests and examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rl100_trainer.data.dataset import MODE_TELEOP, NO_IMAGES, EpisodeArrays, simulated_episode
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.spec import PolicySpec

FloatArray = NDArray[np.float32]

MAX_STEPS = 16
CHUNK = 2
LARGEST_STEP = 0.2
RADIUS = 0.08
IMAGE_SIZE = 16
PERIOD_NS = 50_000_000

REACH_SPEC = PolicySpec(
    n_obs_steps=1,
    state_dim=4,
    num_points=0,
    n_action_steps=CHUNK,
    action_low=(-LARGEST_STEP,) * 2,
    action_high=(LARGEST_STEP,) * 2,
    action_is_delta=True,
)


class ReachEnv(gymnasium.Env):
    """Observation (x, y, goal x, goal y), unitless; see ``rollouts.environment.ChunkEnv``."""

    def __init__(self) -> None:
        self.dense = False
        self.max_steps = MAX_STEPS
        self.observation_space = spaces.Dict(
            state=spaces.Box(-np.inf, np.inf, (1, 4), np.float32),
            cloud=spaces.Box(-np.inf, np.inf, (1, 0, 3), np.float32),
        )
        self.action_space = spaces.Box(-LARGEST_STEP, LARGEST_STEP, (CHUNK, 2), np.float32)
        self.position = self.goal = np.zeros(2)
        self.step_count = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Position and goal that ``seed`` stands for."""
        super().reset(seed=seed)
        rng = np.random.default_rng(seed)
        self.position, self.goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        self.step_count = 0
        return self.observe(), {}

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observation of this moment."""
        state = np.concatenate([self.position, self.goal]).astype(np.float32)
        return {"state": state[None], "cloud": np.zeros((1, 0, 3), dtype=np.float32)}

    def step(
        self, action: FloatArray
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Execute a chunk (2, 2) until the episode ends."""
        rewards = np.zeros(CHUNK, dtype=np.float32)
        executed = np.zeros((CHUNK, 2), dtype=np.float32)
        frames = []
        for index in range(CHUNK):
            frames.append(self.observe())
            executed[index] = np.clip(action[index], -LARGEST_STEP, LARGEST_STEP)
            self.position = self.position + executed[index]
            self.step_count += 1
            success = bool(np.hypot(*(self.position - self.goal)) < RADIUS)
            rewards[index] = success
            if success or self.step_count >= MAX_STEPS:
                break
        truncated = not success and self.step_count >= MAX_STEPS
        info: dict[str, Any] = {
            "steps": index + 1,
            "rewards": rewards,
            "actions": executed,
            "success": success,
        }
        if self.dense:
            info["frames"] = frames
        return self.observe(), float(rewards.sum()), success, truncated, info


class SeenReachEnv(ReachEnv):
    """The goal is seen in an image: a bright square; the state has zeros in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict(
            state=spaces.Box(-np.inf, np.inf, (1, 4), np.float32),
            cloud=spaces.Box(-np.inf, np.inf, (1, 0, 3), np.float32),
            image=spaces.Box(0, 255, (1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
        )

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observation of this moment."""
        seen: dict[str, NDArray[Any]] = {**super().observe()}
        seen["state"][:, 2:] = 0.0
        across, down = np.rint((self.goal + 1.0) / 2.0 * (IMAGE_SIZE - 4)).astype(int)
        image = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), 30, dtype=np.uint8)
        image[0, down : down + 4, across : across + 4] = (220, 60, 40)
        return {**seen, "image": image}


@dataclass(frozen=True)
class SeenReachFactory:
    """Makes the environment in a worker process."""

    def __call__(self) -> SeenReachEnv:
        """A new environment."""
        return SeenReachEnv()


@dataclass(frozen=True)
class ReachFactory:
    """Makes the environment in a worker process."""

    def __call__(self) -> ReachEnv:
        """A new environment."""
        return ReachEnv()


REACH_TASK = LearningTask("reach", REACH_SPEC, MAX_STEPS, PERIOD_NS)
SEEN_REACH_SPEC = replace(REACH_SPEC, image_shape=(IMAGE_SIZE, IMAGE_SIZE))
SEEN_REACH_TASK = LearningTask("seen_reach", SEEN_REACH_SPEC, MAX_STEPS, PERIOD_NS)


def reach_demonstrations(
    seeds: Sequence[int], noise: float = 0.6, *, seen: bool = False
) -> list[EpisodeArrays]:
    """One demonstration for each seed that heads for the goal, with noise (part of the largest
    step), so that it misses as often as it hits; ``seen``: with images."""
    env = SeenReachEnv() if seen else ReachEnv()
    env.dense = True
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        rng = np.random.default_rng([seed, 1])
        bias = noise * LARGEST_STEP * rng.standard_normal(2)
        frames, actions, rewards = [], [], []
        ended = success = False
        while not ended:
            jitter = noise * LARGEST_STEP * rng.standard_normal((CHUNK, 2))
            wanted = 0.5 * (env.goal - env.position + bias + jitter)
            _, _, success, truncated, info = env.step(wanted.astype(np.float32))
            ended = success or truncated
            frames += info["frames"]
            actions.append(info["actions"][: info["steps"]])
            rewards.append(info["rewards"][: info["steps"]])
        episodes.append(
            simulated_episode(
                f"reach_{seed}",
                states=np.stack([frame["state"] for frame in frames]),
                clouds=np.stack([frame["cloud"] for frame in frames]),
                images=np.stack([frame["image"] for frame in frames]) if seen else NO_IMAGES,
                actions=np.concatenate(actions),
                rewards=np.concatenate(rewards),
                decision=np.arange(len(frames)) % CHUNK == 0,
                period_ns=PERIOD_NS,
                mode=MODE_TELEOP,
                success=success,
                source="scripted",
            )
        )
    return episodes
