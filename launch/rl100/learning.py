"""Runs the whole of RL-100, or a baseline, on a task in process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from rl100.problems import Problem
from rl100_contracts.errors import ContractError
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.store import load_episodes, save_episodes
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import Progress, ProgressCallback, StopRequested, never_stop
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import OnPolicySource, Outcomes, Sampler
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.run_lock import locked
from rl100_trainer.stages.iterate import IterativeTraining

DEMONSTRATIONS = "demonstrations.npz"
DEMONSTRATION_SEEDS = 10_000  # between the first start states of two seeds' demonstrations


def settings_of(
    problem: Problem, source: str | None, overrides: Sequence[str], seed: int
) -> TrainConfig:
    """The task's own defaults, then a preset or file, then the user's overrides and the seed.

    Raises:
        ContractError: a bad configuration, or a seed among the overrides.
    """
    if any(text.partition("=")[0].strip() in ("seed", "run.seed") for text in overrides):
        raise ContractError("override 'run.seed': give the seed with --seed (bench: --seeds)")
    return load_config(source, [*overrides, f"run.seed={seed}"], task_overrides=problem.overrides)


def demonstrations_of(
    problem: Problem, count: int, seed: int, run: Path, progress: ProgressCallback
) -> list[EpisodeArrays]:
    """Scripted demonstrations of a seed, recorded once and kept in the run's folder."""
    path = run / DEMONSTRATIONS
    if not path.is_file():
        run.mkdir(parents=True, exist_ok=True)
        first = seed * DEMONSTRATION_SEEDS
        episodes = problem.demonstrate(
            range(first, first + count),
            lambda done: progress(Progress("iterate", "demonstrations", done, count)),
        )
        save_episodes(path, episodes)
    episodes = load_episodes(path)
    if len(episodes) != count:
        raise ContractError(
            f"{path}: holds {len(episodes)} demonstrations, not {count}: give another folder for "
            "another number of them"
        )
    return episodes


@dataclass
class Learning:
    """An open run: worlds, rollouts and the driver. A context manager.

    Args:
        demonstrations: all of them, failures too.
        through_ros: rollouts run through the ROS graph and come back as bags; else in process.
    """

    problem: Problem
    config: TrainConfig
    demonstrations: Sequence[EpisodeArrays]
    run: Path
    progress: ProgressCallback
    stop: StopRequested = never_stop
    through_ros: bool = False

    def __enter__(self) -> Learning:
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # the worlds rest meanwhile
        with ExitStack() as stack:
            stack.enter_context(locked(self.run))
            self.source: OnPolicySource = (
                self._open_ros(stack) if self.through_ros else self._open_pool(stack)
            )
            self.training = IterativeTraining(
                self.config,
                self.problem.task,
                self.demonstrations,
                self.source,
                self.run,
                progress=self.progress,
                stop=self.stop,
            )
            self._stack = stack.pop_all()
        return self

    def _open_pool(self, stack: ExitStack) -> OnPolicySource:
        task, config = self.problem.task, self.config
        pool = stack.enter_context(
            EnvironmentPool(self.problem.factory, task.spec, config.online.environments)
        )
        return VectorSource(
            pool,
            max_steps=task.max_steps,
            period_ns=task.period_ns,
            discount=config.critic.discount,
            seed=config.run.seed,
        )

    def _open_ros(self, stack: ExitStack) -> OnPolicySource:
        from rl100.ros_source import RosSource
        from rl100.session import Session
        from rl100.systems import describe
        from rl100.up import RunningSystem

        contract = self.problem.task.contract
        if contract is None:
            raise ContractError(f"task '{self.problem.task.name}' has no ROS system: no --ros")
        folder = self.run / "ros"
        folder.mkdir(parents=True, exist_ok=True)
        arguments = {"task": self.problem.name, "data": str((folder / "data").absolute())}
        system = stack.enter_context(RunningSystem(describe("demo", arguments)))
        session = stack.enter_context(Session(contract, system.check))
        return RosSource(session, self.problem.task, self.config, folder / "bundles")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def policy(self, folder: str) -> DiffusionPolicy:
        """A policy that the run has kept, by its folder (``il/bundle``, ``offline``, ...)."""
        return self.training.load(folder)

    def evaluate(self, folder: str, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        """Success of a policy that the run has kept."""
        return self.source.evaluate(self.policy(folder), sampler, seeds)
