"""The benchmark ``learn``: success of every stage of RL-100, or of a baseline, over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl100.bench.frame import Bench, Figure, Options, mean, over_seeds
from rl100.bench.learn_plot import save_plot
from rl100.bench.learning_seeds import fresh_starts, measured, opened
from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.loading import read_text, write_json_atomic

if TYPE_CHECKING:
    from rl100.learning import Learning
    from rl100_trainer.rollouts.source import Sampler

RESULT, IMITATION = "result.json", "imitation.json"
IMITATION_FIGURES = (
    "imitation_all_success",
    "imitation_successes_success",
    "imitation_weighted_success",
)
#: (figure, folder of the policy in the run, sampler); what a baseline lacks is left out.
POLICIES: tuple[tuple[str, str, Sampler], ...] = (
    ("bc_success", "il/bundle", "k_step"),
    ("offline_success", "offline", "k_step"),
    ("online_success", "online/policy", "k_step"),
    ("one_step_success", "online/policy", "one_step"),
)


def learn_seed(task: str, seed: int, run: Path, options: Options) -> dict[str, Any]:
    """Everything that one seed gave; each part is measured once and kept in its run's folder."""
    wanted = [part for part in (RESULT, IMITATION) if not (run / part).is_file()]
    if wanted:
        with opened(task, seed, run, options) as learning:
            _learn(task, learning, options)
    result = json.loads(read_text(run / RESULT))
    result["successes"] |= json.loads(read_text(run / IMITATION))
    return dict(result)


def _learn(task: str, learning: Learning, options: Options) -> None:
    from rl100.bench.imitation_only import imitation_only

    run, training, seeds = learning.run, learning.training, fresh_starts(options)
    if not (run / RESULT).is_file():
        training.run()
        wall_s = training.wall_s
        rates = {
            name: int(learning.evaluate(folder, sampler, seeds).success.sum())
            for name, folder, sampler in POLICIES
            if (run / folder / WEIGHTS).is_file()
        }
        success = sum(e.outcome == "success" for e in learning.demonstrations)
        result = {
            "task": task,
            "seed": learning.config.run.seed,
            "algorithm": learning.config.run.algorithm,
            "overrides": list(options.overrides),
            "demonstration_success": success / len(learning.demonstrations),
            "episodes": len(seeds),
            "successes": rates,
            "env_steps": training.env_steps,
            "wall_s": wall_s,
            "steps": training.steps,
        }
        write_json_atomic(run / RESULT, result)
    if not (run / IMITATION).is_file():
        compare = training.iterations > 0
        write_json_atomic(run / IMITATION, imitation_only(learning, seeds) if compare else {})


def figures_of(results: Sequence[dict[str, Any]]) -> list[Figure]:
    """Figures over all seeds, with intervals that hold the spread between seeds."""
    figures = []
    for name in (*(name for name, *_ in POLICIES), *IMITATION_FIGURES):
        known = [r for r in results if name in r["successes"]]
        if known:
            successes = [r["successes"][name] for r in known]
            figures.append(over_seeds(name, successes, [r["episodes"] for r in known]))
    figures.append(mean("env_steps", [float(r["env_steps"]) for r in results], "steps", keep=True))
    figures.append(mean("wall_s", [float(r["wall_s"]) for r in results], "s", keep=True))
    return figures


def run(options: Options, on_seed: Callable[[int], None] = lambda _: None) -> list[Figure]:
    """Learn with every seed; a run that was interrupted goes on.

    Raises:
        ContractError: an unknown task or configuration, or training that fails.
        Interrupted: after Ctrl-C; the same command goes on.
    """
    return figures_of(measured(options, learn_seed, save_plot, "learn.png", on_seed))


BENCH = Bench("learn", "success of each stage of RL-100 or of a baseline, over seeds", run)
