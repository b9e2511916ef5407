"""Pictures of the demo: learning curves, success bars, filmstrip of a recorded episode."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from rl100.evaluate import Evaluation
from rl100_contracts.decode import decode, decode_depth, message_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.task import Task

FRAMES = 6
LABELS = {
    "demonstrations": "noisy\nteleoperator",
    "k_step": "K-step\ndiffusion",
    "one_step": "one-step\n(deployed)",
}


def success_bars(evaluations: list[Evaluation]) -> Figure:
    """Success rates with 95 % Wilson intervals."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for index, evaluation in enumerate(evaluations):
        low, high = evaluation.interval
        rate = evaluation.success_rate
        axes.bar(index, rate, width=0.6, color=("#9aa5b1", "#2a6f97", "#2f9e6e")[index % 3])
        axes.errorbar(
            index, rate, yerr=[[rate - low], [high - rate]], color="black", capsize=5, lw=1.2
        )
        axes.text(index + 0.05, high + 0.02, f"{rate:.0%}", ha="center")
    axes.set_xticks(
        range(len(evaluations)),
        [f"{LABELS.get(e.name, e.name)}\nn = {len(e.results)}" for e in evaluations],
    )
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("success rate, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def read_curves(metrics: Path) -> dict[str, list[tuple[float, float]]]:
    """Curves of a run's metrics.jsonl: "phase: name" to (step, value) pairs."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in metrics.read_text(encoding="utf-8").splitlines():
        entry: dict[str, Any] = json.loads(line)
        for name, value in entry.items():
            if name not in ("phase", "step", "time") and isinstance(value, (int, float)):
                curves[f"{entry['phase']}: {name}"].append((entry["step"], value))
    return dict(curves)


def learning_curves(curves: dict[str, list[tuple[float, float]]], names: list[str]) -> Figure:
    """Loss curves, one panel each, logarithmic."""
    figure = Figure(figsize=(3.4 * len(names), 3.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names)))
    for axes, name in zip(panels, names, strict=True):
        steps, values = zip(*curves[name], strict=True)
        axes.plot(steps, values, color="#2a6f97", lw=1.4)
        if min(values) > 0:
            axes.set_yscale("log")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("optimiser step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def filmstrip(episode: Path, task: Task, goal: tuple[float, float], radius: float) -> Figure:
    """What the camera saw, and the clouds that the policy saw, from an episode's start to its end.

    Args:
        goal: its position, m; ``radius`` (m) is drawn around it.
    """
    if task.observation.cloud is None:
        return _colour_strip(episode, task)
    camera, cloud_spec = next(iter(task.cameras.values())), task.cloud
    depths: list[np.ndarray] = []
    clouds: dict[int, np.ndarray] = {}
    stamps: list[int] = []
    with EpisodeReader(episode, task) as reader:
        info = reader.info
        for name, msg in reader.messages([cloud_spec.stream, camera.source]):
            if name == cloud_spec.stream:
                clouds[message_stamp_ns(msg)] = decode(task, name, msg)
            else:
                depths.append(decode_depth(msg, camera.depth_scale))
                stamps.append(message_stamp_ns(msg))
    chosen = np.linspace(0, len(stamps) - 1, FRAMES).round().astype(int)
    figure = Figure(figsize=(2.1 * FRAMES, 4.3), layout="constrained")
    rows = figure.subplots(2, FRAMES)
    (x0, y0, _), (x1, y1, z1) = cloud_spec.crop.low, cloud_spec.crop.high
    for column, index in enumerate(chosen):
        depth = np.where(depths[index] > 0, depths[index], np.nan)
        image, plan = rows[0][column], rows[1][column]
        image.imshow(depth, cmap="viridis_r")
        image.set_title(f"{(stamps[index] - stamps[0]) * 1e-9:.1f} s", fontsize=9)
        cloud = clouds[stamps[index]]
        plan.add_patch(Circle(goal, radius, fill=False, color="#d1495b", lw=1.5))
        plan.scatter(cloud[:, 0], cloud[:, 1], c=cloud[:, 2], s=3, cmap="plasma", vmin=0, vmax=z1)
        plan.set_xlim(x0, x1)
        plan.set_ylim(y0, y1)
        plan.set_aspect("equal")
        for axes in (image, plan):
            axes.set_xticks([])
            axes.set_yticks([])
    rows[0][0].set_ylabel("depth image")
    rows[1][0].set_ylabel("cloud from above, goal in red")
    figure.suptitle(f"{info.episode_id}: {info.outcome.value}", fontsize=10)
    return figure


def _colour_strip(episode: Path, task: Task) -> Figure:
    """The images that the policy saw."""
    image = task.observation.image
    assert image is not None  # a task without a cloud observes an image
    with EpisodeReader(episode, task) as reader:
        info = reader.info
        seen = [
            (message_stamp_ns(msg), decode(task, name, msg))
            for name, msg in reader.messages([image.stream])
        ]
    chosen = np.linspace(0, len(seen) - 1, FRAMES).round().astype(int)
    figure = Figure(figsize=(2.1 * FRAMES, 2.6), layout="constrained")
    for axes, index in zip(figure.subplots(1, FRAMES), chosen, strict=True):
        stamp, pixels = seen[index]
        axes.imshow(pixels)
        axes.set_title(f"{(stamp - seen[0][0]) * 1e-9:.1f} s", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(f"{info.episode_id}: {info.outcome.value}", fontsize=10)
    return figure
