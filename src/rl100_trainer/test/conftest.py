"""Shared fixtures: a small task and synthetic episodes of it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from rl100_contracts.task import Task, load_task
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays

torch.set_num_threads(1)

TINY = (
    "model.widths=[32]",
    "model.features=8",
    "model.point_widths=[8,16]",
    "diffusion.steps=5",
    "imitation.steps=30",
    "imitation.batch_size=16",
    "distill.steps=20",
    "run.checkpoint_every=10",
    "run.device=cpu",
)


@pytest.fixture(autouse=True)
def few_parity_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export compares 256 actions, which takes longer than to train these policies."""
    monkeypatch.setattr("rl100_trainer.export.PARITY_SAMPLES", 16)


@pytest.fixture(scope="session")
def task() -> Task:
    """The built-in push task with small clouds."""
    push = load_task("push")
    values = push.model_dump()
    values["observation"]["cloud"]["num_points"] = 16
    return Task.model_validate(values)


@pytest.fixture
def tiny() -> TrainConfig:
    """A configuration that trains within a second."""
    return load_config(None, TINY)


def make_episodes(task: Task, count: int = 6, length: int = 12) -> list[EpisodeArrays]:
    """Random observations; the action points from the tool to the cloud's centre."""
    rng = np.random.default_rng(0)
    frames, points = task.control.n_obs_steps, task.observation.cloud.num_points
    episodes = []
    for number in range(count):
        states = rng.normal(size=(length, frames, task.observation.state_dim)).astype(np.float32)
        clouds = rng.normal(size=(length, frames, points, 3)).astype(np.float32)
        aim = clouds[:, -1].mean(axis=1)[:, :2] - states[:, -1, 2:4]
        episodes.append(
            EpisodeArrays(
                episode_id=f"episode{number}",
                states=states,
                clouds=clouds,
                actions=np.clip(0.02 * aim, -0.03, 0.03).astype(np.float32),
                stamps=np.arange(length, dtype=np.int64) * 50_000_000,
                segment=np.zeros(length, dtype=np.int32),
                decision=np.ones(length, dtype=bool),
                mode=np.ones(length, dtype=np.uint8),
                rewards=np.eye(1, length, length - 1, dtype=np.float32)[0],
                outcome="success",
            )
        )
    return episodes


@pytest.fixture
def episodes(task: Task) -> list[EpisodeArrays]:
    """Six synthetic episodes."""
    return make_episodes(task)
