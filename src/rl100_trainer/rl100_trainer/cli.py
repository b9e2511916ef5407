"""``rl100 train``: the training stages as commands (also ``ros2 run rl100_trainer train``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rl100_contracts.errors import run_main
from rl100_trainer.command import call
from rl100_trainer.console import progress_bars, progress_lines

if TYPE_CHECKING:
    from rl100_trainer.stage_runner import Stage

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a policy on recorded episodes.",
)

Data = Annotated[list[Path], typer.Option(help="Folder of episodes; may be repeated.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; an unfinished run goes on.")]
NewRun = Annotated[Path, typer.Option(help="New folder of the run.")]
Previous = Annotated[Path, typer.Option(help="Folder of the run to go on from.")]
TaskName = Annotated[str, typer.Option(help="Built-in task or task file.")]
ConfigSource = Annotated[
    str, typer.Option(help="Preset or YAML file; --show-config prints the result.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")
]
Cache = Annotated[Path | None, typer.Option(help="Folder of decoded episodes.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Don't keep them.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at an unusable episode instead of skipping it.")
]
OtherVersions = Annotated[
    bool,
    typer.Option("--other-task-versions", help="Also use episodes of other versions of the task."),
]
ImageWeights = Annotated[
    Path | None,
    typer.Option(help="Start the image encoder from a ResNet-18's weights (.safetensors)."),
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="Print the whole configuration and stop.")
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Progress and result as JSON lines on standard output.")
]


@app.callback()
def _group() -> None:
    """Train a policy on recorded episodes."""


def _run(
    stage: Stage,
    data: list[Path],
    out: Path,
    task: str,
    *,
    config: str = "",
    overrides: list[str] | None,
    cache: Path | None,
    no_cache: bool,
    show_config: bool,
    json_lines: bool,
    **options: Any,
) -> None:
    from rl100_trainer.config import load_config

    if "previous" not in options:
        settings = load_config(config or None, overrides or [])
        if show_config:
            print(settings.to_yaml(), end="")
            return
    # After the configuration is known to be good: this imports PyTorch, which takes seconds.
    from rl100_trainer.data.bags import default_cache
    from rl100_trainer.stage_runner import StageRequest, run_stage

    request = StageRequest(
        stage,
        task,
        data,
        out,
        config=config,
        overrides=tuple(overrides or ()),
        cache=None if no_cache else (cache or default_cache()),
        **options,
    )
    if show_config:
        print(request.settings().to_yaml(), end="")
        return
    with progress_lines() if json_lines else progress_bars() as show:
        result, skipped = run_stage(request, show)
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
    if "j_candidate" in result.metrics:
        figures = result.metrics
        print(
            f"the gate let {figures['accepted']:.0f} of {figures['phases']:.0f} phases pass: Ĵ "
            f"{figures['j_behaviour']:.4g} before the last of them, {figures['j_candidate']:.4g} "
            "after; try the policy before you go on with it (rl100 episodes compare)"
        )
    print(f"bundle {result.policy_version} in {result.bundle}")


@app.command("il")
def imitation(
    data: Data,
    out: Out,
    task: TaskName = "push",
    config: ConfigSource = "",
    overrides: Overrides = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    strict: Strict = False,
    other_versions: OtherVersions = False,
    show_config: ShowConfig = False,
    json_lines: JsonLines = False,
    image_weights: ImageWeights = None,
) -> None:
    """Imitate demonstrations: diffusion policy, one-step student, checked ONNX bundle."""
    _run(
        "il",
        data,
        out,
        task,
        config=config,
        overrides=overrides,
        cache=cache,
        no_cache=no_cache,
        show_config=show_config,
        json_lines=json_lines,
        strict=strict,
        other_versions=other_versions,
        image_weights=image_weights,
    )


def _add_recorded_stage(stage: Stage, description: str) -> None:
    """A command for a stage that goes on from an earlier run."""

    @app.command(stage, help=description)
    def command(
        data: Data,
        previous: Previous,
        out: NewRun,
        task: TaskName = "push",
        overrides: Overrides = None,
        cache: Cache = None,
        no_cache: NoCache = False,
        strict: Strict = False,
        other_versions: OtherVersions = False,
        show_config: ShowConfig = False,
        json_lines: JsonLines = False,
    ) -> None:
        _run(
            stage,
            data,
            out,
            task,
            overrides=overrides,
            cache=cache,
            no_cache=no_cache,
            show_config=show_config,
            json_lines=json_lines,
            previous=previous,
            strict=strict,
            other_versions=other_versions,
        )


_add_recorded_stage(
    "offline", "Improve a policy on all data so far, failures included, behind the gate."
)
_add_recorded_stage(
    "online", "One on-policy update on stochastic rollouts of the previous run's policy."
)


@app.command("config")
def explain_config() -> None:
    """Explain every key of the configuration."""
    from rl100_trainer.config import describe_keys, preset_names

    for line in describe_keys():
        print(line)
    print(f"\npresets (--config): {', '.join(preset_names())}")


def main() -> NoReturn:
    """The console command ``train``."""
    run_main(lambda: call(typer.main.get_command(app), None, "train"))
