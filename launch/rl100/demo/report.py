"""The report of a demo: one HTML page with its pictures inside, and a table for the terminal."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from rl100.demo import pictures
from rl100.demo.driver import DemoResult
from rl100.evaluate import Evaluation
from rl100_contracts.loading import write_text_atomic

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d2733; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .9rem; border-bottom: 1px solid #d5dbe1; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
code { background: #f0f3f6; padding: .1rem .3rem; border-radius: 3px; }
"""
HEADINGS = ("", "success", "95 % interval", "episodes", "steps", "inference ms,\np50 / p99")
NAMES = {
    "demonstrations": "noisy demonstrations",
    "k_step": "K-step diffusion policy",
    "one_step": "one-step policy",
}


def _cells(evaluation: Evaluation) -> tuple[str, ...]:
    low, high = evaluation.interval
    timing = "-"
    if evaluation.inference_p50_ms is not None and evaluation.inference_p99_ms is not None:
        timing = f"{evaluation.inference_p50_ms:.2f} / {evaluation.inference_p99_ms:.2f}"
    return (
        NAMES.get(evaluation.name, evaluation.name),
        f"{evaluation.success_rate:.1%}",
        f"{low:.1%} - {high:.1%}",
        str(len(evaluation.results)),
        f"{evaluation.mean_steps:.0f}",
        timing,
    )


def _evaluations(result: DemoResult) -> list[Evaluation]:
    first = [] if result.demonstrations is None else [result.demonstrations]
    return [*first, *result.evaluations]


def table(result: DemoResult) -> Table:
    """The demo's result for the terminal."""
    # Fits a terminal of 80 columns.
    view = Table(title=f"task {result.task.name}, seed {result.seed}", box=None, pad_edge=False)
    for index, heading in enumerate(HEADINGS):
        view.add_column(heading, justify="left" if index == 0 else "right")
    for evaluation in _evaluations(result):
        view.add_row(*_cells(evaluation))
    return view


def facts(result: DemoResult) -> list[str]:
    """The figures beside the table, a sentence each."""
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    return [
        f"Export parity (ONNX against training code): {result.export_parity:.1e} of the action "
        "range.",
        f"Bag/live parity: {result.parity_compared - result.parity_different} of "
        f"{result.parity_compared} recorded observations are bit-identical to what the policy saw.",
        f"Lockstep through ROS while recording: {result.steps_per_s:.0f} control steps/s.",
        f"Time: {phases}.",
    ]


def _embed(figure: Figure, path: Path, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _figures(result: DemoResult) -> list[tuple[str, str]]:
    folder, sections = result.folder, []
    bars = pictures.success_bars(_evaluations(result))
    sections.append(("Success", _embed(bars, folder / "success.png", "success rates")))
    metrics = folder / "train" / "metrics.jsonl"
    if metrics.is_file():
        curves = pictures.read_curves(metrics)
        names = [name for name in curves if name.endswith("loss")][:4]
        if names:
            figure = pictures.learning_curves(curves, names)
            path = folder / "learning_curves.png"
            sections.append(("Learning curves", _embed(figure, path, "learning curves")))
    from rl100_sim.scene import PushScene

    scene = PushScene()
    goal = (float(scene.goal[0]), float(scene.goal[1]))
    episodes = [r for r in result.evaluations[-1].results if r.path]
    solved = sorted(episodes, key=lambda r: not r.success)[:2]
    for index, episode in enumerate(solved):
        strip = pictures.filmstrip(Path(episode.path), result.task, goal, scene.success_radius)
        title = "The one-step policy at work" if index == 0 else ""
        image = _embed(strip, folder / f"episode_{index}.png", "filmstrip of an episode")
        sections.append((title, image))
    return sections


def write_report(result: DemoResult) -> Path:
    """Write report.html and its pictures into the demo's folder; returns the page's path."""
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"number" if i else ""}">{html.escape(cell)}</td>'
            for i, cell in enumerate(_cells(evaluation))
        )
        + "</tr>"
        for evaluation in _evaluations(result)
    )
    heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS)
    body = "".join(
        (f"<h2>{html.escape(title)}</h2>" if title else "") + image
        for title, image in _figures(result)
    )
    lines = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts(result))
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>rl100 demo</title>"
        f"<style>{STYLE}</style><h1>rl100 demo: task {html.escape(result.task.name)}</h1>"
        f"<table><tr>{heads}</tr>{rows}</table><ul>{lines}</ul>"
        f"<p>Bundle: <code>{html.escape(str(result.bundle))}</code></p>{body}</html>"
    )
    path = result.folder / "report.html"
    write_text_atomic(path, page)
    return path
