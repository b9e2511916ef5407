"""``rl100 bench``: the list of benchmarks, the table and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rl100.bench import loop_basics
from rl100.bench.frame import Bench, Options, report
from rl100.systems import suggestion
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import write_json_atomic

BENCHES: dict[str, Bench] = {bench.name: bench for bench in (loop_basics.BENCH,)}


def bench_named(name: str) -> Bench:
    """The benchmark ``name``; raises ContractError with the known names."""
    if name not in BENCHES:
        raise ContractError(
            f"benchmark '{name}' is unknown: choose one of {', '.join(BENCHES)}"
            + suggestion(name, BENCHES)
        )
    return BENCHES[name]


def print_benches() -> None:
    """Print the benchmarks, one line each."""
    table = Table(box=None, show_header=False)
    for bench in BENCHES.values():
        table.add_row(f"[bold]{bench.name}[/]", bench.description)
    Console().print(table)


def figures_table(result: dict[str, Any]) -> Table:
    """The figures of a report as a table."""
    table = Table(title=f"{result['bench']} on {result['machine']['cpu']}", title_justify="left")
    table.add_column("figure", no_wrap=True)
    for heading in ("value", "95 % interval", "unit", "n"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    for figure in result["figures"]:
        known = figure["n"] > 1
        interval = f"{figure['low']:.4g} to {figure['high']:.4g}" if known else ""
        table.add_row(
            figure["name"], f"{figure['value']:.4g}", interval, figure["unit"], str(figure["n"])
        )
    return table


def run_bench(name: str, *, quick: bool = False, json_file: Path | None = None) -> None:
    """Run a benchmark, print its figures and write them to ``json_file``.

    Raises:
        ContractError: an unknown benchmark, a folder that is missing, or a failed measurement.
    """
    bench = bench_named(name)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        # Before the minutes of measuring, not after them.
        raise ContractError(f"{json_file.parent}: no such folder for --json")
    result = report(bench, Options(quick=quick))
    Console().print(figures_table(result))
    if json_file is not None:
        write_json_atomic(json_file, result)
