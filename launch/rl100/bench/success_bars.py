"""Bars of success rates over seeds, as the pictures of benchmarks that learn have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl100.statistics import seeds_interval

SUCCESS = "success, 95 % interval, one point a seed"


def draw_success(
    axes: Axes, place: float, successes: Sequence[int], trials: Sequence[int], colour: str
) -> None:
    """One bar: the rate over all seeds, its interval, and a point for each seed."""
    low, high = seeds_interval(successes, trials)
    rate = sum(successes) / sum(trials)
    axes.bar(place, rate, width=0.6, color=colour, alpha=0.75)
    axes.errorbar(place, rate, yerr=[[rate - low], [high - rate]], color="black", capsize=4)
    for count, episodes in zip(successes, trials, strict=True):
        axes.plot(place, count / episodes, "o", ms=4, color="k")
    axes.text(place, min(high + 0.02, 1.02), f"{rate:.1%}", ha="center")


def save_picture(figure: Figure, what: str, results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Give the picture its title (``what`` and the seeds) and write it; returns its path."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    figure.suptitle(f"{what}, {seeds}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
