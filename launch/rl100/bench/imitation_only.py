"""The best that imitation alone makes of the data that offline reinforcement learning had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from rl100.learning import Learning
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.improvement import load_critics
from rl100_trainer.stages.reimitation import imitation_plan

Kind = Literal["all", "successes", "weighted"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def imitation_only(learning: Learning, seeds: Sequence[int]) -> dict[str, int]:
    """Successes on ``seeds`` of policies imitated from scratch on the offline stage's data.

    The data are the demonstrations and all rollouts of the offline iterations: all of them, the
    successful ones, or all weighted by the advantage of the last iteration's critics.
    """
    training = learning.training
    policy = training.load("il/bundle")
    folder = learning.run / f"iteration_{training.iterations}"
    critics = load_critics(folder, policy, learning.config)
    episodes = training.episodes(training.iterations)
    successes = {}
    for kind in KINDS:
        done = f"{folder.name}/imitate/bundle"
        if kind == learning.config.offline.imitate and (learning.run / done).is_dir():
            # The last iteration has done just that (it does not where no trial was asked for).
            successes[f"imitation_{kind}_success"] = _successes(learning, done, seeds)
            continue
        plan = imitation_plan(kind, episodes, critics, training.transitions)
        name = f"imitation_{kind}"
        train_imitation(
            learning.config,
            learning.problem.task,
            plan.episodes,
            learning.run / name,
            weights=plan.weights,
            start=plan.start,
            progress=learning.progress,
            stop=learning.stop,
        )
        successes[f"{name}_success"] = _successes(learning, f"{name}/bundle", seeds)
    return successes


def _successes(learning: Learning, folder: str, seeds: Sequence[int]) -> int:
    return int(learning.evaluate(folder, "k_step", seeds).success.sum())
