"""Meta-World's tasks as learning problems: ``push-v3``, or ``push-v3:cloud`` for point clouds."""

from __future__ import annotations

from collections.abc import Sequence

from rl100.metaworld.environment import Observed
from rl100.metaworld.experts import ActionNoise, ScriptedExpert, record_demonstrations
from rl100.metaworld.factory import make_metaworld
from rl100.metaworld.switch import METAWORLD
from rl100.metaworld.world import library
from rl100.problems import OnEpisode, Problem
from rl100_contracts.errors import ContractError
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.learning_task import LearningTask

# The 39 values hold the previous frame already.
CHUNK, HISTORY = 4, {"state": 1, "cloud": 2}
DEMONSTRATIONS = 50


def metaworld_problem(name: str) -> Problem:
    """The problem of a task of Meta-World.

    Raises:
        ContractError: no such task or observation, or Meta-World is not installed.
    """
    task, _, observed = name.partition(":")
    if observed not in ("", "state", "cloud"):
        raise ContractError(f"'{METAWORLD}{name}' ends in '{observed}': give state or cloud")
    kind: Observed = "cloud" if observed == "cloud" else "state"
    factory = make_metaworld(task, kind, CHUNK, HISTORY[kind])
    library()  # says at once where it is missing

    def demonstrate(seeds: Sequence[int], on_episode: OnEpisode) -> list[EpisodeArrays]:
        noise = ActionNoise.demonstration(factory.task)
        expert = ScriptedExpert(factory.task)
        return record_demonstrations(factory(), expert, seeds, noise, on_episode)

    full = f"{METAWORLD}{factory.task}" + (":cloud" if observed == "cloud" else "")
    learner = LearningTask(full, factory.spec, factory.max_steps, factory.period_ns)
    return Problem(full, learner, factory, demonstrate, DEMONSTRATIONS)
