"""`rl100 iterate`: imitation, iterative offline RL and online RL in one run that can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rl100.metaworld.switch import enter_environment
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task

if TYPE_CHECKING:
    from rl100_trainer.data.dataset import EpisodeArrays


def iterate(
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished run goes on")],
    task: Annotated[str, typer.Option(help="push, a task file, or metaworld:<task>")] = "push",
    data: Annotated[
        list[Path] | None,
        typer.Option(help="folder of recorded demonstrations; may be repeated; else scripted ones"),
    ] = None,
    demonstrations: Annotated[
        int, typer.Option(min=0, help="number of scripted ones; 0: the task's default")
    ] = 0,
    config: Annotated[str, typer.Option(help="preset or YAML file")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; may be repeated")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=99, help="of everything random")] = 0,
    ros: Annotated[
        bool, typer.Option("--ros", help="rollouts through the ROS graph, as bags (slower)")
    ] = False,
) -> None:
    """Learn a task in simulation with all stages, from demonstrations to a one-step policy."""
    enter_environment(task)
    # Imported here: PyTorch must not slow down `rl100 --help`.
    from rl100.learning import Learning, demonstrations_of, settings_of
    from rl100.problems import problem_named
    from rl100_trainer.console import StopFlag, progress_bars

    problem = problem_named(task)
    settings = settings_of(problem, config or None, overrides or [], seed)
    stop = StopFlag()
    with stop.caught(), progress_bars() as show:
        if data:
            episodes = _recorded(problem.task.contract, data)
        else:
            count = demonstrations or problem.demonstrations
            episodes = demonstrations_of(problem, count, seed, out, show)
        with Learning(problem, settings, episodes, out, show, stop, ros) as learning:
            result = learning.training.run()
            steps = learning.training.steps
    console = Console()
    console.print(_table(steps))
    name = result.policy_version or problem.name
    console.print(f"policy {name} in {result.bundle}", soft_wrap=True)


def _recorded(task: Task | None, folders: list[Path]) -> list[EpisodeArrays]:
    """All labelled episodes of the folders; the unusable ones are named."""
    from rl100_trainer.data.bags import default_cache, read_episodes

    if task is None:
        raise ContractError("--data: a benchmark has no recorded episodes; leave it out")
    episodes, report = read_episodes(folders, task, ("success", "failure"), cache=default_cache())
    for sentence in report.skipped:
        Console(stderr=True).print(f"skipped: {sentence}", highlight=False)
    return episodes


def _table(steps: dict[str, dict[str, Any]]) -> Table:
    """What each step of the run came to."""
    table = Table(title="steps of the run", title_justify="left")
    table.add_column("step")
    table.add_column("result")
    for name, step in steps.items():
        if "verdicts" in step:
            for number, verdict in enumerate(step["verdicts"], 1):
                table.add_row(f"{name} {number}", str(verdict["reason"]))
        elif "adopted" in step:
            word = "adopted" if step["adopted"] else "kept the old one"
            rates = (
                f": {step['candidate_success']:.0%} against {step['behaviour_success']:.0%}"
                if "candidate_success" in step
                else f": {step['verdict']}"
            )
            table.add_row(name, word + rates)
        elif "success" in step:
            table.add_row(name, f"{step['success']:.0%} of the exploring episodes succeed")
        elif step.get("curve"):
            best = max(success for _, success in step["curve"])
            table.add_row(name, f"best evaluation {best:.1%}, {step['env_steps']} steps")
    return table
