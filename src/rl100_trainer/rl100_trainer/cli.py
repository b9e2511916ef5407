"""``rl100 train``: the training stages as commands (also ``ros2 run rl100_trainer train``)."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rl100_contracts.errors import run_main
from rl100_contracts.task import load_task
from rl100_trainer.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from rl100_trainer.config import TrainConfig
    from rl100_trainer.stages.imitation import ImitationResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a policy on recorded episodes.",
)


@app.callback()
def _group() -> None:
    """Train a policy on recorded episodes."""


class _StopFlag:
    """Turns SIGINT and SIGTERM into a question that training asks between two steps."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        return self.requested

    def _handle(self, *_: object) -> None:
        if self.requested:  # a second Ctrl-C doesn't wait
            raise KeyboardInterrupt
        self.requested = True

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals inside the with block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@contextmanager
def _progress_bars() -> Iterator[ProgressCallback]:
    """Bars on standard error, one per phase."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        known = {}

        def show(progress: Progress) -> None:
            if progress.phase not in known:
                known[progress.phase] = bars.add_task(progress.phase, total=None, note="")
            loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}"
            eta = "" if progress.eta_s < 0 else f", {progress.eta_s:.0f} s left"
            bars.update(
                known[progress.phase],
                completed=progress.step,
                total=progress.total or None,
                note=loss + eta,
            )

        yield show


@contextmanager
def _progress_lines() -> Iterator[ProgressCallback]:
    """One JSON object per line on standard output, for programs."""

    def show(progress: Progress) -> None:
        values = {k: None if v != v else v for k, v in asdict(progress).items()}  # NaN isn't JSON
        print(json.dumps({"progress": values}), flush=True)

    yield show


def _run_il(
    config: TrainConfig,
    task_name: str,
    folders: list[Path],
    out: Path,
    show: ProgressCallback,
    options: tuple[Path | None, bool, bool],
) -> tuple[ImitationResult, list[str]]:
    """Read the data and train; returns the result and a sentence for each skipped episode."""
    import torch

    from rl100_contracts.errors import Interrupted
    from rl100_trainer.data.bags import read_episodes
    from rl100_trainer.stages.imitation import STAGE, train_imitation

    torch.set_num_threads(config.run.threads)
    cache, strict, other_versions = options
    stop = _StopFlag()
    with stop.caught():

        def on_episode(done: int, total: int) -> None:
            if stop():
                raise Interrupted("interrupted while reading the episodes; nothing was written")
            show(Progress(STAGE, "read", done, total))

        task = load_task(task_name)
        episodes, report = read_episodes(
            folders,
            task,
            config.imitation.outcomes,
            cache=cache,
            strict=strict,
            other_versions=other_versions,
            on_episode=on_episode,
        )
        for sentence in report.skipped:
            print(f"skipped: {sentence}", file=sys.stderr)
        result = train_imitation(config, task, episodes, out, progress=show, stop=stop)
    return result, report.skipped


@app.command("il")
def imitation(
    data: Annotated[list[Path], typer.Option(help="Folder of episodes; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run goes on.")],
    task: Annotated[str, typer.Option(help="Built-in task or task file.")] = "push",
    config: Annotated[
        str, typer.Option(help="Preset or YAML file; --show-config prints the result.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded episodes.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Don't keep them.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an unusable episode instead of skipping it.")
    ] = False,
    other_versions: Annotated[
        bool,
        typer.Option(
            "--other-task-versions", help="Also use episodes of other versions of the task."
        ),
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the whole configuration and stop.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Progress and result as JSON lines on standard output.")
    ] = False,
) -> None:
    """Imitate demonstrations: diffusion policy, one-step student, checked ONNX bundle."""
    from rl100_trainer.config import load_config

    settings = load_config(config or None, overrides or [])
    if show_config:
        print(settings.to_yaml(), end="")
        return
    # After the configuration is known to be good: this imports PyTorch, which takes seconds.
    from rl100_trainer.data.bags import default_cache

    folder = None if no_cache else (cache or default_cache())
    with _progress_lines() if json_lines else _progress_bars() as show:
        result, skipped = _run_il(settings, task, data, out, show, (folder, strict, other_versions))
    if json_lines:
        summary = {
            "bundle": str(result.bundle.resolve()),
            "policy_version": result.policy_version,
            "skipped": skipped,
            "metrics": result.metrics,
        }
        print(json.dumps({"result": summary}), flush=True)
        return
    episodes = int(result.metrics.get("episodes", 0))
    print(f"trained on {episodes} episodes, {len(skipped)} skipped")
    print(f"bundle {result.policy_version} in {result.bundle}")


@app.command("config")
def explain_config() -> None:
    """Explain every key of the configuration."""
    from rl100_trainer.config import describe_keys, preset_names

    for line in describe_keys():
        print(line)
    print(f"\npresets (--config): {', '.join(preset_names())}")


def main() -> NoReturn:
    """The console command ``train``."""
    run_main(lambda: app(prog_name="train"))
