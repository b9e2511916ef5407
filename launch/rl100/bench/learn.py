"""The benchmark ``learn``: success of every stage of RL-100, or of a baseline, over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rl100.bench.frame import Bench, Figure, Options, mean, over_seeds
from rl100.bench.learn_plot import save_plot
from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import read_text, write_json_atomic

if TYPE_CHECKING:
    from rl100_trainer.rollouts.source import Sampler

FRESH_SEEDS = 1_000_000  # start states that no stage has seen
SEEDS = 100  # whose demonstrations begin below FRESH_SEEDS
EPISODES, QUICK_EPISODES = 500, 200
REQUEST, RESULT, IMITATION = "request.json", "result.json", "imitation.json"
IMITATION_FIGURES = (
    "imitation_all_success",
    "imitation_successes_success",
    "imitation_weighted_success",
)
#: The small version: a toy task whose whole learning takes about a minute.
QUICK_TASK = "reach"
QUICK_OVERRIDES = (
    "model.widths=[64,64]",
    "model.features=32",
    "diffusion.steps=3",
    "critic.discount=0.95",
    "imitation.steps=300",
    "distill.steps=150",
    "critic.steps=300",
    "offline.iterations=1",
    "offline.rollouts=80",
    "offline.phases=2",
    "offline.steps=40",
    "offline.check_episodes=50",
    "online.env_steps=15000",
    "online.environments=32",
    "online.decisions=8",
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
    request = {"task": task, "quick": options.quick, "overrides": [*options.overrides]}
    _check_request(run, request)
    wanted = [part for part in (RESULT, IMITATION) if not (run / part).is_file()]
    if wanted:
        _learn(task, seed, run, options, request)
    result = json.loads(read_text(run / RESULT))
    result["successes"] |= json.loads(read_text(run / IMITATION))
    return dict(result)


def _check_request(run: Path, request: dict[str, Any]) -> None:
    """Refuse to show what was measured in a folder as something else's result.

    Raises:
        ContractError: the folder holds another benchmark.
    """
    path = run / REQUEST
    if path.is_file() and json.loads(read_text(path)) != request:
        raise ContractError(
            f"{path}: this folder holds the benchmark of another task or configuration: give "
            "another one with --out"
        )


def _learn(task: str, seed: int, run: Path, options: Options, request: dict[str, Any]) -> None:
    from rl100.bench.imitation_only import imitation_only
    from rl100.learning import Learning, demonstrations_of, settings_of
    from rl100.problems import problem_named
    from rl100_trainer.console import StopFlag, progress_bars

    problem = problem_named(task)
    quick = QUICK_OVERRIDES if options.quick else ()
    settings = settings_of(problem, None, [*quick, *options.overrides], seed)
    # Only now, when task and configuration are known to be good, the folder is theirs.
    run.mkdir(parents=True, exist_ok=True)
    write_json_atomic(run / REQUEST, request)
    episodes = QUICK_EPISODES if options.quick else EPISODES
    seeds = range(FRESH_SEEDS, FRESH_SEEDS + episodes)
    stop = StopFlag()
    with stop.caught(), progress_bars() as show:
        demonstrations = demonstrations_of(problem, problem.demonstrations, seed, run, show)
        with Learning(problem, settings, demonstrations, run, show, stop) as learning:
            if not (run / RESULT).is_file():
                learning.training.run()
                wall_s = learning.training.wall_s
                rates = {
                    name: int(learning.evaluate(folder, sampler, seeds).success.sum())
                    for name, folder, sampler in POLICIES
                    if (run / folder / WEIGHTS).is_file()
                }
                success = sum(e.outcome == "success" for e in demonstrations)
                result = {
                    "task": task,
                    "seed": seed,
                    "algorithm": settings.run.algorithm,
                    "overrides": list(options.overrides),
                    "demonstration_success": success / len(demonstrations),
                    "episodes": episodes,
                    "successes": rates,
                    "env_steps": learning.training.env_steps,
                    "wall_s": wall_s,
                    "steps": learning.training.steps,
                }
                write_json_atomic(run / RESULT, result)
            if not (run / IMITATION).is_file():
                compare = learning.training.iterations > 0
                write_json_atomic(
                    run / IMITATION, imitation_only(learning, seeds) if compare else {}
                )


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


def folder_name(task: str, options: Options) -> str:
    """Folder of a task's runs, one for each algorithm."""
    chosen = [o.partition("=")[2] for o in options.overrides if o.startswith("run.algorithm=")]
    return "-".join([task.replace(":", "-").replace("/", "-"), *chosen])


def run(options: Options, on_seed: Callable[[int], None] = lambda _: None) -> list[Figure]:
    """Learn with every seed; a run that was interrupted goes on.

    Raises:
        ContractError: an unknown task or configuration, or training that fails.
        Interrupted: after Ctrl-C; the same command goes on.
    """
    task = options.task or (QUICK_TASK if options.quick else "push")
    if options.first_seed + options.seeds > SEEDS:
        raise ContractError(
            f"--first-seed {options.first_seed} --seeds {options.seeds}: seeds are 0 to "
            f"{SEEDS - 1}, as later ones would learn from the start states of the evaluation"
        )
    runs = options.folder / folder_name(task, options)
    results = []
    console = Console(stderr=True)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        folder = runs / f"seed_{seed}"
        console.print(f"{task}, seed {seed}: {folder}", highlight=False, soft_wrap=True)
        results.append(learn_seed(task, seed, folder, options))
        on_seed(seed)
    console.print(f"plot: {save_plot(results, runs / 'learn.png')}", soft_wrap=True)
    return figures_of(results)


BENCH = Bench("learn", "success of each stage of RL-100 or of a baseline, over seeds", run)
