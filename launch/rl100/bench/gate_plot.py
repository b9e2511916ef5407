"""The picture of the benchmark ``gate``: success with and without it, good and poor critics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rl100.statistics import seeds_interval

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
            successes = [r[kind][case] for r in results]
            low, high = seeds_interval(successes, trials)
            rate = sum(successes) / sum(trials)
            axes.bar(place, rate, width=0.6, color=COLOURS[case], alpha=0.75)
            axes.errorbar(place, rate, yerr=[[rate - low], [high - rate]], color="black", capsize=4)
            for count, episodes in zip(successes, trials, strict=True):
                axes.plot(place, count / episodes, "o", ms=4, color="k")
            axes.text(place, min(high + 0.02, 1.02), f"{rate:.0%}", ha="center")
        axes.axhline(before, color="black", lw=0.8, ls="--")
        axes.text(len(CASES) - 0.6, before + 0.01, "before", fontsize=8)
        axes.set_xlim(-0.5, len(CASES))
        axes.set_xticks(range(len(CASES)), list(CASES.values()))
        refused = sum(r[kind]["refused"] for r in results)
        phases = sum(len(r[kind]["verdicts"]) for r in results)
        axes.set_title(f"{title}: {refused} of {phases} phases refused", fontsize=10)
        axes.set_ylim(0, 1.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.2)
    first = figure.axes[0]
    first.set_ylabel("success, 95 % interval, one point a seed")
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    figure.suptitle(f"{results[0]['task']}, {seeds}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
