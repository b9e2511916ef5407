"""The picture of the benchmark ``policy``: speed, latencies, deadlines, swap and stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl100.bench.policy.figures import Measured

BLUE, GREEN, ORANGE, RED = "#2a6f97", "#2f9e6e", "#d98032", "#b3413a"
RUNS = (BLUE, ORANGE)
LABELS = {"unet_full": "full U-Net", "unet_small": "small U-Net", "skipnet": "Skip-Net"}


def save_plot(measured: Measured, path: Path) -> Path:
    """Write the picture; what was not measured stays empty and says so. Returns its path."""
    figure = Figure(figsize=(13.0, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    _models(axes[0, 0], measured)
    _latencies(axes[0, 1], measured)
    _deadlines(axes[0, 2], measured)
    _memory(axes[1, 0], measured)
    waits = measured.swaps.first_action_ms if measured.swaps else []
    _histogram(axes[1, 1], waits, "bundle pushed → first action of it, ms", GREEN)
    _histogram(axes[1, 2], measured.stops_ms, "stop → last moving command, ms", RED)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)


def _distribution(axes: Axes, samples: Sequence[float], label: str, colour: str) -> None:
    ordered = np.sort(np.asarray(samples))
    share = 1.0 - np.arange(len(ordered)) / len(ordered)
    axes.step(ordered, share, where="post", label=label, color=colour)


def _models(axes: Axes, measured: Measured) -> None:
    rows: list[tuple[str, Sequence[float], str]] = []
    for name, pair in measured.pairs.items():
        rows.append((f"{LABELS[name]}\nDDIM, eager", pair.slow_ms, BLUE))
        rows.append((f"{LABELS[name]}\none step, ONNX", pair.fast_ms, GREEN))
    for name, found in measured.openvino.items():
        rows.append((f"{LABELS[name]}\nCPU provider", found.pair.slow_ms, BLUE))
        rows.append((f"{LABELS[name]}\nOpenVINO", found.pair.fast_ms, ORANGE))
    axes.set_xlabel("inference, ms (median; line to p99)")
    if not rows:
        return _empty(axes)
    for place, (_, samples, colour) in enumerate(rows):
        p50, p99 = np.percentile(samples, [50, 99])
        axes.barh(place, p50, color=colour, alpha=0.8)
        axes.plot([p50, p99], [place, place], color="black", lw=1)
        axes.text(p99 * 1.1, place, f"{p50:.3g}", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=7)
    axes.margins(x=0.2)


def _latencies(axes: Axes, measured: Measured) -> None:
    axes.set_xlabel("ms after the observation was sent")
    axes.set_ylabel("share that took longer")
    found = measured.latencies
    if found is None or not found.to_command:
        return _empty(axes)
    _distribution(axes, measured.bare_ms, "bare model", ORANGE)
    _distribution(axes, found.to_publish, "chunk published", GREEN)
    _distribution(axes, found.to_command, "command received", BLUE)
    axes.set_yscale("log")
    axes.set_xlim(0, 1.2 * float(np.percentile(found.to_command, 99.5)))
    axes.legend(fontsize=8)


def _deadlines(axes: Axes, measured: Measured) -> None:
    axes.set_xlabel("control periods until the chunk came (2: or more)")
    axes.set_ylabel("share that took longer")
    if not measured.sustained:
        return _empty(axes)
    for (name, found), colour in zip(measured.sustained.items(), RUNS, strict=False):
        periods = np.asarray(found.latencies_ms) * found.rate_hz / 1e3
        label = f"{LABELS[name]}, {found.rate_hz:g} Hz, {found.seconds:.0f} s"
        _distribution(axes, np.minimum(periods, 2.0).tolist(), label, colour)
    axes.axvline(1.0, color="black", lw=1, ls="--")
    axes.set_yscale("log")
    axes.set_xlim(0, 2.05)
    axes.legend(fontsize=8)


def _memory(axes: Axes, measured: Measured) -> None:
    axes.set_xlabel("s")
    axes.set_ylabel("resident memory, MiB")
    if not measured.sustained:
        return _empty(axes)
    for (name, found), colour in zip(measured.sustained.items(), RUNS, strict=False):
        for (node, samples), style in zip(found.memory.items(), ("-", "--"), strict=False):
            times = np.linspace(0.0, found.seconds, len(samples))
            label = f"{node.removeprefix('rl100_')}, {LABELS[name]}"
            axes.plot(times, samples, style, color=colour, label=label)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def _histogram(axes: Axes, samples: Sequence[float], label: str, colour: str) -> None:
    axes.set_xlabel(label)
    if not samples:
        return _empty(axes)
    axes.hist(samples, bins=min(60, max(10, len(samples) // 5)), color=colour, alpha=0.8)
    p50, worst = float(np.median(samples)), max(samples)
    axes.set_title(f"median {p50:.3g} ms, longest {worst:.3g} ms, n = {len(samples)}", fontsize=9)
