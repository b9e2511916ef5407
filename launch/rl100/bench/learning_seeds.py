"""What benchmarks that learn have in common: a run of each seed in a folder of its own.

They share these folders, so that one goes on with what another has learnt with the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rl100.bench.frame import Options
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import read_text, write_json_atomic

if TYPE_CHECKING:
    from rl100.learning import Learning
    from rl100_trainer.config import TrainConfig

FRESH_SEEDS = 1_000_000  # start states that no stage has seen
SEEDS = 100  # whose demonstrations begin below FRESH_SEEDS
EPISODES, QUICK_EPISODES = 500, 200
REQUEST = "request.json"
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


def fresh_starts(options: Options) -> range:
    """Seeds of the start states on which policies are measured."""
    return range(FRESH_SEEDS, FRESH_SEEDS + (QUICK_EPISODES if options.quick else EPISODES))


def check_request(task: str, run: Path, options: Options) -> None:
    """Refuse to show what was measured in a folder as something else's result.

    Raises:
        ContractError: the folder holds another benchmark.
    """
    path = run / REQUEST
    if path.is_file() and json.loads(read_text(path)) != _request(task, options):
        raise ContractError(
            f"{path}: this folder holds the benchmark of another task or configuration: give "
            "another one with --out"
        )


def _request(task: str, options: Options) -> dict[str, object]:
    return {"task": task, "quick": options.quick, "overrides": [*options.overrides]}


@contextmanager
def opened(
    task: str,
    seed: int,
    run: Path,
    options: Options,
    check: Callable[[TrainConfig], None] = lambda _: None,
) -> Iterator[Learning]:
    """The run of a seed, with its demonstrations and worlds; Ctrl-C stops it between two steps.

    Args:
        check: refuses a configuration that the benchmark can't take; nothing is written then.

    Raises:
        ContractError: an unknown task or configuration, or whatever ``check`` raises.
    """
    from rl100.learning import Learning, demonstrations_of, settings_of
    from rl100.problems import problem_named
    from rl100_trainer.console import StopFlag, progress_bars
    from rl100_trainer.stages.runs import check_horizon, choose_device

    problem = problem_named(task)
    quick = QUICK_OVERRIDES if options.quick else ()
    settings = settings_of(problem, None, [*quick, *options.overrides], seed)
    check(settings)
    check_horizon(settings, problem.task)
    choose_device(settings.run.device)
    # Only now, when task and configuration are known to be good, the folder is theirs.
    run.mkdir(parents=True, exist_ok=True)
    write_json_atomic(run / REQUEST, _request(task, options))
    stop = StopFlag()
    with stop.caught(), progress_bars() as show:
        demonstrations = demonstrations_of(problem, problem.demonstrations, seed, run, show)
        with Learning(problem, settings, demonstrations, run, show, stop) as learning:
            yield learning


def folder_name(task: str, options: Options) -> str:
    """Folder of a task's runs, one for each algorithm."""
    chosen = [o.partition("=")[2] for o in options.overrides if o.startswith("run.algorithm=")]
    return "-".join([task.replace(":", "-").replace("/", "-"), *chosen])


def measured(
    options: Options,
    measure: Callable[[str, int, Path, Options], dict[str, Any]],
    save_plot: Callable[[Sequence[dict[str, Any]], Path], Path],
    picture: str,
    on_seed: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """What ``measure`` gives for each seed, drawn beside their folders.

    Raises:
        ContractError: an unknown task, seeds that are too large, or whatever ``measure`` raises.
    """
    from rl100.problems import problem_named

    task = options.task or (QUICK_TASK if options.quick else "push")
    problem_named(task)  # an unknown one is refused before its folder is named
    if options.first_seed + options.seeds > SEEDS:
        raise ContractError(
            f"--first-seed {options.first_seed} --seeds {options.seeds}: seeds are 0 to "
            f"{SEEDS - 1}, as later ones would learn from the start states of the evaluation"
        )
    runs, results = options.folder / folder_name(task, options), []
    console = Console(stderr=True)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        run = runs / f"seed_{seed}"
        console.print(f"{task}, seed {seed}: {run}", highlight=False, soft_wrap=True)
        check_request(task, run, options)
        results.append(measure(task, seed, run, options))
        on_seed(seed)
    console.print(f"plot: {save_plot(results, runs / picture)}", soft_wrap=True)
    return results
