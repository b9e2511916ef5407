"""``rl100 bench``: the list of benchmarks, the table and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rl100.bench import gate, learn, loop_basics
from rl100.bench.frame import Bench, Options, report
from rl100.bench.perception import run as perception
from rl100.bench.policy import run as policy
from rl100.system_parts import suggestion
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import check_output_file, write_json_atomic

DEFAULTS = Options()
# In the table only what a number needs; with all of it lines would be cut at 80 columns.
TELLING_NOTHING = ("fraction", "count", "0 or 1")
BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (loop_basics.BENCH, learn.BENCH, gate.BENCH, policy.BENCH, perception.BENCH)
}


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


def _number(value: float, digits: int) -> str:
    """A value with so many digits, and no exponent where it is merely large."""
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"


def figures_table(result: dict[str, Any]) -> Table:
    """The figures of a report as a table."""
    title = f"{result['bench']} on {result['machine']['cpu']}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("figure", no_wrap=True)
    for heading in ("value", "95 % interval", "", "n"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for figure in result["figures"]:
        unit = "" if figure["unit"] in TELLING_NOTHING else figure["unit"]
        if figure["value"] is None:
            table.add_row(figure["name"], "-", "", unit, "0", style="dim")
            continue
        known = figure["low"] < figure["high"]
        interval = f"{_number(figure['low'], 3)} – {_number(figure['high'], 3)}" if known else ""
        value = _number(figure["value"], 4)
        table.add_row(figure["name"], value, interval, unit, str(figure["n"]))
    return table


def remarks(result: dict[str, Any]) -> list[str]:
    """What was left out and why, and how busy the machine was."""
    left_out: dict[str, list[str]] = {}
    for figure in result["figures"]:
        if figure["value"] is None:
            left_out.setdefault(figure["note"], []).append(figure["name"])
    load, cores = result["load"], result["machine"]["cores"]
    others = load["cores_of_others"]
    lines = [f"not measured: {', '.join(names)}: {why}" for why, names in left_out.items()]
    lines.append(
        f"{load['wall_s']:.0f} s on {cores} cores; others kept {others:.2f} of them busy "
        f"(load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after)"
    )
    return lines


def run_bench(name: str, options: Options = DEFAULTS, *, json_file: Path | None = None) -> None:
    """Run a benchmark, print its figures and write them to ``json_file``.

    Raises:
        ContractError: an unknown benchmark, a folder that is missing, or a failed measurement.
    """
    bench = bench_named(name)
    if json_file is not None:
        check_output_file(json_file)
    result = report(bench, options)
    console = Console()
    console.print(figures_table(result))
    for line in remarks(result):
        console.print(line, highlight=False)
    if json_file is not None:
        write_json_atomic(json_file, result)
