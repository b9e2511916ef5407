"""The picture of ``rl100 calibrate check``: the table as it is seen, from two sides and above."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rl100.calibrate.check import BAND_M, CameraCheck, expected_plane
from rl100.view.scene import box_corners
from rl100_contracts.task import Task

MOST_POINTS = 20_000


def draw_checks(task: Task, height_m: float | None, checks: list[CameraCheck], out: Path) -> None:
    """Draw each camera's points: their heights over the table along x and y, and from above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    point, normal = expected_plane(task, height_m)
    corners = box_corners(task.cloud.crop)
    figure = Figure(figsize=(13, 4 * len(checks)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(checks), 3, squeeze=False)
    rng = np.random.default_rng(0)
    for row, check in zip(grid, checks, strict=True):
        points = check.points[rng.permutation(len(check.points))[:MOST_POINTS]]
        heights = (points - point) @ normal * 1e3
        for axes, axis in zip(row[:2], (0, 1), strict=True):
            axes.scatter(points[:, axis], heights, s=1, c="tab:blue", alpha=0.3, linewidths=0)
            axes.axhline(0.0, color="tab:red", label="where the table should be")
            axes.set_xlabel(f"{'xy'[axis]} [m]")
            axes.set_ylabel("height over the table [mm]")
            axes.set_ylim(-BAND_M * 1e3, BAND_M * 1e3)
        row[0].legend(loc="upper right")
        row[0].set_title(f"camera '{check.camera}'")
        limit = max(5.0, float(np.percentile(np.abs(heights), 90)))
        shown = row[2].scatter(
            points[:, 0], points[:, 1], s=1, c=heights, cmap="coolwarm", vmin=-limit, vmax=limit
        )
        low, high = corners.min(axis=0), corners.max(axis=0)
        row[2].plot(
            [low[0], high[0], high[0], low[0], low[0]],
            [low[1], low[1], high[1], high[1], low[1]],
            color="black",
        )
        row[2].set_title("from above, with the crop box")
        row[2].set_aspect("equal")
        row[2].set_xlabel("x [m]")
        row[2].set_ylabel("y [m]")
        figure.colorbar(shown, ax=row[2], label="height [mm]")
    figure.savefig(out, dpi=100)
