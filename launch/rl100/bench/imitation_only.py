"""The best that imitation alone makes of the data that offline reinforcement learning had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

from rl100.learning import Learning
from rl100_trainer.progress import Progress, ProgressCallback
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.improvement import load_critics
from rl100_trainer.stages.reimitation import STEPS, imitation_plan, with_steps

Kind = Literal["all", "successes", "weighted"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def imitation_only(learning: Learning, seeds: Sequence[int]) -> dict[str, int]:
    """Successes on ``seeds`` of policies imitated from scratch on the offline stage's data.

    The data are the demonstrations and all rollouts of the offline iterations: all of them, the
    successful ones, or all weighted by the advantage of the last iteration's critics. They have as
    many optimiser steps as the offline stage's policy imitated for, its re-trainings included, and
    those of one re-training at least.
    """
    training = learning.training
    critics = load_critics(
        learning.run / f"iteration_{training.iterations}",
        training.load("il/bundle"),
        learning.config,
    )
    episodes = training.episodes(training.iterations)
    config = with_steps(learning.config, 1 + STEPS * max(1, training.retrainings))
    successes = {}
    for kind in KINDS:
        plan = imitation_plan(kind, episodes, critics, training.transitions)
        name = f"imitation_{kind}"
        train_imitation(
            config,
            learning.problem.task,
            plan.episodes,
            learning.run / name,
            weights=plan.weights,
            start=plan.start,
            progress=partial(_named, learning.progress, kind),
            stop=learning.stop,
        )
        successes[f"{name}_success"] = _successes(learning, f"{name}/bundle", seeds)
    return successes


def _named(show: ProgressCallback, kind: Kind, progress: Progress) -> None:
    show(replace(progress, phase=f"imitate {kind}: {progress.phase}"))


def _successes(learning: Learning, folder: str, seeds: Sequence[int]) -> int:
    return int(learning.evaluate(folder, "k_step", seeds).success.sum())
