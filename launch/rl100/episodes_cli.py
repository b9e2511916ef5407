"""``rl100 episodes``: look at recorded episodes. Nothing here changes or deletes one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rl100_contracts.episode import (
    EpisodeInfo,
    check_episode,
    list_episodes,
    load_episode_info,
    unfinished_episodes,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task

app = typer.Typer(no_args_is_help=True, help="List and check recorded episodes.")

Folder = Annotated[Path, typer.Argument(help="Folder of episodes, or one episode.")]
TaskName = Annotated[
    str, typer.Option("--task", help="Built-in task or task file that they should be of.")
]

_COLOURS = {"success": "green", "failure": "red", "unknown": "yellow", "discarded": "dim"}


@app.command("list")
def list_command(
    folder: Folder = Path("data"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for other programs.")
    ] = False,
) -> None:
    """List episodes with their verdict, length and source."""
    rows, unreadable = [], []
    for path in list_episodes(folder):
        try:
            rows.append((path, load_episode_info(path)))
        except ContractError as error:
            unreadable.append(str(error))
    if as_json:
        for path, info in rows:
            print(json.dumps({"path": str(path), **info.model_dump(mode="json")}))
    else:
        _print_table(rows)
    for sentence in [*unreadable, *_unfinished(folder)]:
        typer.echo(sentence, err=True)
    if unreadable:
        raise typer.Exit(1)


def _print_table(rows: list[tuple[Path, EpisodeInfo]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("episode", "verdict", "by", "steps", "length", "acted", "MB", ""):
        right = heading in ("steps", "length", "MB")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for path, info in rows:
        colour = _COLOURS[info.outcome.value]
        acted = " ".join(part for part in (info.source, info.policy_version) if part)
        table.add_row(
            escape(path.name),
            f"[{colour}]{info.outcome.value}[/]",
            escape(info.labeller),
            str(info.steps),
            f"{info.duration_s:.1f} s",
            escape(acted),
            f"{info.bag_bytes / 1e6:.1f}",
            "" if info.complete else "[yellow]incomplete[/]",
        )
    # Without a terminal nothing may be folded: the output goes to a file or another program.
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(table)
    successes = sum(info.outcome.value == "success" for _, info in rows)
    steps = sum(info.steps for _, info in rows)
    console.print(f"{len(rows)} episodes, {successes} successful, {steps} steps")


@app.command("check")
def check_command(folder: Folder = Path("data"), task: TaskName = "") -> None:
    """Read every byte of every episode; exit status 1 when anything is wrong.

    Reports damaged bags, episodes whose audit failed, those of another task, and those that a
    crash cut off while they were recorded.
    """
    wanted = load_task(task) if task else None
    paths = list_episodes(folder)
    bad = 0
    for path in paths:
        problems = list(_problems(path, wanted))
        bad += bool(problems)
        for problem in problems:
            typer.echo(problem)
    unfinished = list(_unfinished(folder))
    for sentence in unfinished:
        typer.echo(sentence)
    typer.echo(
        f"{len(paths)} episodes: {len(paths) - bad} good, {bad} with problems, "
        f"{len(unfinished)} unfinished"
    )
    if bad or unfinished:
        raise typer.Exit(1)


@app.command("parity")
def parity_command(folder: Folder = Path("data"), task: TaskName = "push") -> None:
    """Prove that the bags give bit for bit the clouds and observations that the policy saw.

    Clouds are made again from the recorded images of the cameras. Exit status 1 when a cloud or an
    observation differs; of episodes in which no policy acted only the clouds are compared.
    """
    from rl100.parity import check_clouds, check_parity

    wanted = load_task(task)
    compared = different = skipped = clouds = other_clouds = 0
    for path in list_episodes(folder):
        if wanted.observation.cloud is not None:
            made = check_clouds(path, wanted)
            clouds += made.compared
            other_clouds += len(made.different)
            if made.different:
                typer.echo(f"{path}: {len(made.different)} of {made.compared} clouds differ")
        if not load_episode_info(path).policy_version:
            skipped += 1
            continue
        parity = check_parity(path, wanted)
        compared += parity.compared
        different += len(parity.different)
        if parity.different:
            typer.echo(f"{path}: {len(parity.different)} of {parity.compared} observations differ")
    if clouds:
        typer.echo(
            f"{clouds - other_clouds} of {clouds} clouds, made again from the cameras' images, are "
            "bit-identical"
        )
    typer.echo(
        f"{compared - different} of {compared} observations are bit-identical "
        f"({skipped} episodes without a policy skipped)"
    )
    if different or other_clouds or not (compared or clouds):
        raise typer.Exit(1)


@app.command("compare")
def compare_command(
    candidate: Annotated[str, typer.Argument(help="New policy: run, bundle or version.")],
    behaviour: Annotated[str, typer.Argument(help="Policy that it would replace.")],
    data: Annotated[list[Path], typer.Option(help="Folder of episodes of both; may be repeated.")],
    pairs: Annotated[int, typer.Option(min=1, help="The trial is over after so many.")] = 100,
) -> None:
    """Say whether a new policy is better than the old one, by the verdicts on recorded episodes.

    They are paired in the order in which they were recorded, so take turns, with like starts and
    like settings. It may be asked after every pair. Exit status 1: not better, or not known yet.
    """
    from rl100.compare_episodes import compare, labelled_episodes, policy_version_of
    from rl100.statistics import wilson_interval

    versions = policy_version_of(candidate), policy_version_of(behaviour)
    result = compare(labelled_episodes(data), *versions, pairs)
    table = Table(box=None, pad_edge=False)
    for heading in ("policy", "episodes", "success", "95 %"):
        table.add_column(heading)
    for version, won, count in zip(versions, result.successes, result.episodes, strict=True):
        low, high = wilson_interval(won, count)
        table.add_row(version, str(count), f"{won / count:.0%}", f"{low:.0%} – {high:.0%}")
    Console().print(table)
    typer.echo(f"{versions[0]}: {result.sentence()}")
    if not result.test.adopt():
        raise typer.Exit(1)


def _problems(path: Path, task: Task | None) -> Iterator[str]:
    try:
        info = check_episode(path, task)
    except ContractError as error:
        yield str(error)
        return
    for problem in info.problems:
        yield f"{path}: incomplete: {problem}"
    if task is not None and info.task_hash != task.hash:
        yield f"{path}: recorded with another version of task '{task.name}'"


def _unfinished(folder: Path) -> Iterator[str]:
    for path in unfinished_episodes(folder):
        yield f"{path}: unfinished: a crash cut it off while it was recorded, or it is running"
