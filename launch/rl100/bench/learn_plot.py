"""The picture of the benchmark ``learn``: success by stage and over control steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rl100.bench.success_bars import SUCCESS, draw_success, save_picture

LABELS = {
    "bc_success": "imitation",
    "imitation_all_success": "of all\nrollouts",
    "imitation_successes_success": "of\nsuccesses",
    "imitation_weighted_success": "weighted",
    "offline_success": "offline\nRL",
    "online_success": "online\nRL",
    "one_step_success": "one\nstep",
}
BAR, LINE = "#2a6f97", "#2f9e6e"


def save_plot(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write the picture of all seeds' results (see ``learn.learn_seed``); returns its path."""
    figure = Figure(figsize=(10.0, 3.8), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    names = [name for name in LABELS if all(name in r["successes"] for r in results)]
    trials = [r["episodes"] for r in results]
    for place, name in enumerate(names):
        draw_success(bars, place, [r["successes"][name] for r in results], trials, BAR)
    bars.set_xticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    bars.set_ylim(0, 1.1)
    bars.set_ylabel(SUCCESS)
    for result in results:
        curve = result["steps"].get("online", {}).get("curve", [])
        if curve:
            steps, success = zip(*curve, strict=True)
            curves.plot(steps, success, color=LINE, lw=1.3)
    curves.set_ylim(0, 1.05)
    curves.set_xlabel("control steps of the online stage")
    curves.set_ylabel("success (evaluations on the way)")
    what = f"{results[0]['task']}, {results[0]['algorithm']}"
    return save_picture(figure, what, results, path)
