"""A scene as a picture, without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rl100.view.scene import Scene

GREY = "0.75"
MOST_CROPPED = 15_000
CAMERA_COLOURS = ("tab:red", "tab:purple", "tab:orange", "tab:cyan")


def draw(scene: Scene, out: Path) -> None:
    """Write a .png: an oblique view and the views from above and from the side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(scene.title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.6, 1.0))
    oblique = figure.add_subplot(grid[:, 0], projection="3d")
    heights = scene.sampled[:, 2]
    label = "for the policy" + (" (colour: height)" if scene.colours is None else "")
    colours: Any = heights if scene.colours is None else scene.colours / 255.0
    step = max(1, len(scene.cropped) // MOST_CROPPED)
    some = scene.cropped[::step]
    oblique.scatter(*some.T, s=4, c=GREY, alpha=0.5, linewidths=0, label="in the crop box")
    oblique.scatter(*scene.sampled.T, s=10, c=colours, cmap="viridis", label=label)
    for edge in scene.box:
        oblique.plot(*edge.T, color="black", linewidth=0.8)
    for number, (name, edges) in enumerate(scene.cameras.items()):
        colour = CAMERA_COLOURS[number % len(CAMERA_COLOURS)]
        for edge in edges:
            oblique.plot(*edge.T, color=colour, linewidth=1.0)
        oblique.text(*edges[0, 0], f" {name}", color=colour)
    for axis, colour in enumerate(("red", "green", "blue")):
        end = np.zeros(3)
        end[axis] = 0.1
        oblique.plot(*np.stack([np.zeros(3), end]).T, color=colour, linewidth=2)
    oblique.text(0, 0, 0.11, "base", ha="center")
    oblique.set_aspect("equal")
    oblique.view_init(elev=28, azim=-60)
    for axis, label in enumerate("xyz"):
        getattr(oblique, f"set_{label}label")(f"{'xyz'[axis]} [m]")
    oblique.legend(loc="upper left", markerscale=2.5)
    for row, (first, second, title) in enumerate(((0, 1, "from above"), (0, 2, "from the side"))):
        flat = figure.add_subplot(grid[row, 1])
        flat.scatter(some[:, first], some[:, second], s=4, c=GREY, linewidths=0)
        flat.scatter(
            scene.sampled[:, first], scene.sampled[:, second], s=8, c=colours, cmap="viridis"
        )
        for edge in scene.box:
            flat.plot(edge[:, first], edge[:, second], color="black", linewidth=0.8)
        flat.set_aspect("equal")
        flat.set_title(title)
        flat.set_xlabel(f"{'xyz'[first]} [m]")
        flat.set_ylabel(f"{'xyz'[second]} [m]")
    figure.savefig(out, dpi=100)
