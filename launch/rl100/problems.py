"""The tasks that can be learnt in process: their worlds, shapes and demonstrations, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rl100.metaworld.switch import METAWORLD
from rl100_contracts.errors import ContractError
from rl100_contracts.task import builtin_tasks
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.rollouts.environment import EnvFactory

OnEpisode = Callable[[int], None]
Demonstrate = Callable[[Sequence[int], OnEpisode], list[EpisodeArrays]]


@dataclass(frozen=True)
class Problem:
    """One task.

    Attributes:
        name: as on the command line.
        task: what the learner knows of it.
        factory: makes a world in a worker process.
        demonstrate: records one noisy scripted demonstration for each seed.
        demonstrations: how many of them are usual.
        overrides: configuration that the task wants by default.
    """

    name: str
    task: LearningTask
    factory: EnvFactory
    demonstrate: Demonstrate
    demonstrations: int
    overrides: tuple[str, ...] = ()


def problem_named(name: str) -> Problem:
    """The problem of a task: ``push`` (or a task file for the simulated arm), ``reach`` (a toy),
    ``metaworld:<task>`` or ``metaworld:<task>:cloud``.

    Raises:
        ContractError: the task is unknown, or its simulator isn't installed.
    """
    if name == "reach":
        return _reach()
    if name.startswith(METAWORLD):
        return _metaworld(name.removeprefix(METAWORLD))
    if name not in builtin_tasks() and not name.endswith((".yaml", ".yml")):
        raise ContractError(
            f"task '{name}' is unknown: give one of {', '.join(builtin_tasks())}, reach, "
            f"{METAWORLD}<task>, or the path of a task file that ends in .yaml"
        )
    return _push(name)


def _push(name: str) -> Problem:
    from rl100.demonstrations import record_direct
    from rl100.push_env import PushFactory
    from rl100_contracts.task import load_task
    from rl100_sim.expert import ExpertNoise

    task = load_task(name)

    def demonstrate(seeds: Sequence[int], on_episode: OnEpisode) -> list[EpisodeArrays]:
        return record_direct(task, seeds, ExpertNoise.demonstration(), on_episode)

    # A step costs 2 ms (drawing what the camera sees), and 0.5 million of them are enough for 98 %.
    overrides = ["online.env_steps=600000"]
    if task.observation.image:  # on a CPU one costs a hundred times as much as a cloud
        overrides.append("imitation.batch_size=64")
    return Problem(
        name, LearningTask.of(task), PushFactory(name), demonstrate, 120, tuple(overrides)
    )


def _reach() -> Problem:
    from rl100_trainer.testing import REACH_TASK, ReachFactory, reach_demonstrations

    def demonstrate(seeds: Sequence[int], on_episode: OnEpisode) -> list[EpisodeArrays]:
        return reach_demonstrations(seeds)

    return Problem("reach", REACH_TASK, ReachFactory(), demonstrate, 60)


def _metaworld(name: str) -> Problem:
    try:
        from rl100.metaworld.problem import metaworld_problem
    except ModuleNotFoundError as error:
        raise ContractError(
            f"task '{METAWORLD}{name}' needs Meta-World ({error.name} is not there): run "
            "`make metaworld`, then the same command again"
        ) from None
    return metaworld_problem(name)
