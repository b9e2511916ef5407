"""`rl100 eval`: the success rate of a bundle in simulation."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.loading import check_output_file, write_json_atomic
from rl100_contracts.task import load_task


class Sampler(str, Enum):
    """How actions are drawn from the policy."""

    ONE_STEP = "one_step"
    K_STEP = "k_step"


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="directory of the bundle")],
    task: Annotated[str, typer.Option(help="task name or file")] = "push",
    sampler: Annotated[Sampler, typer.Option(help="which policy")] = Sampler.ONE_STEP,
    episodes: Annotated[int, typer.Option(min=1, help="number of start states")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="seed of the first start state")] = 1_000_000,
    direct: Annotated[
        bool, typer.Option("--direct", help="in process, without the ROS graph")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="write the result to this file")] = None,
) -> None:
    """Evaluate a bundle on fresh start states, through the ROS graph or in process."""
    from rl100.evaluate import evaluate_direct, evaluate_ros
    from rl100.session import EpisodeResult, Session
    from rl100.systems import describe
    from rl100.up import RunningSystem

    contract = load_task(task)
    verify_bundle(bundle, contract)
    if json is not None:
        check_output_file(json)
    seeds = range(seed, seed + episodes)
    console = Console()
    ticks = iter(track(seeds, description=f"evaluating {sampler.value}", console=console))
    next(ticks)

    def on_result(_: EpisodeResult) -> None:
        next(ticks, None)

    if direct:
        result = evaluate_direct(bundle, contract, sampler.value, seeds, on_result=on_result)
    else:
        arguments = {"task": task, "bundle": str(bundle.absolute()), "mode": "policy"}
        with ExitStack() as stack:
            system = stack.enter_context(RunningSystem(describe("evaluate", arguments)))
            session = stack.enter_context(Session(contract, system.check))
            result = evaluate_ros(session, sampler.value, seeds, on_result=on_result)
    low, high = result.interval
    view = Table(title=f"{result.policy_version} on {contract.name}")
    for heading in ("policy", "success", "95 % interval", "episodes", "p50 ms", "p99 ms"):
        view.add_column(heading)
    view.add_row(
        sampler.value,
        f"{result.success_rate:.1%}",
        f"{low:.1%} - {high:.1%}",
        str(episodes),
        f"{result.inference_p50_ms:.2f}",
        f"{result.inference_p99_ms:.2f}",
    )
    console.print(view)
    if json is not None:
        write_json_atomic(json, result.summary())
