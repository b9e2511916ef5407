"""The picture of the benchmark ``gate``: success with and without it, good and poor critics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rl100.bench.success_bars import SUCCESS, draw_success, save_picture

CASES = {"gate_off": "no gate", "gate": "gate", "gate_and_trial": "gate and\ntrial"}
TITLES = {"good": "the run's critics", "poor": "poor critics"}
COLOURS = {"gate_off": "#b5651d", "gate": "#2a6f97", "gate_and_trial": "#2f9e6e"}


def save_plot(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write the picture of all seeds' results (see ``gate.gate_seed``); returns its path."""
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    trials = [r["episodes"] for r in results]
    before = sum(r["behaviour"] for r in results) / sum(trials)
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
        for place, case in enumerate(CASES):
            draw_success(axes, place, [r[kind][case] for r in results], trials, COLOURS[case])
        axes.axhline(before, color="black", lw=0.8, ls="--")
        axes.text(len(CASES) - 0.6, before + 0.01, "before", fontsize=8)
        axes.set_xlim(-0.5, len(CASES))
        axes.set_xticks(range(len(CASES)), list(CASES.values()))
        refused = sum(r[kind]["refused"] for r in results)
        phases = sum(len(r[kind]["verdicts"]) for r in results)
        axes.set_title(f"{title}: {refused} of {phases} phases refused", fontsize=10)
        axes.set_ylim(0, 1.1)
    figure.axes[0].set_ylabel(SUCCESS)
    return save_picture(figure, results[0]["task"], results, path)
