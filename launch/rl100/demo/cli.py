"""`rl100 demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rl100_contracts.errors import Interrupted


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="a smaller demo, under 4 minutes")] = False,
    seed: Annotated[int, typer.Option(min=0, max=99, help="of scenes, noise and training")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="folder for everything it makes [runs/demo-<time>]")
    ] = None,
) -> None:
    """Record demonstrations over ROS 2, train a policy, deploy it, evaluate it, write a report."""
    # Imported here: rclpy and matplotlib must not slow down `rl100 --help`.
    from rl100.demo.driver import FULL, QUICK, run_demo
    from rl100.demo.report import facts, table, write_report

    console = Console()
    folder = (out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        result = run_demo(folder, QUICK if quick else FULL, seed, console)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; every process is stopped, what was finished is in {folder}"
        ) from None
    report = write_report(result)
    console.print(table(result))
    for fact in facts(result):
        console.print(fact, highlight=False)
    console.print(f"All in {time.monotonic() - started:.0f} s. Report: {report}", soft_wrap=True)
