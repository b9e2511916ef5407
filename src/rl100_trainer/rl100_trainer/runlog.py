"""Metrics of a run: TensorBoard events and one JSON object per line, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rl100_contracts.loading import write_text_atomic

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Writes scalars to ``<run>/metrics.jsonl`` and ``<run>/tensorboard``. A context manager."""

    def __init__(self, run: Path) -> None:
        # Imported here: it takes a second that nothing but training should pay.
        from torch.utils.tensorboard import SummaryWriter

        self._file = (run / METRICS_FILE).open("a", encoding="utf-8")
        self._events = SummaryWriter(str(run / "tensorboard"))

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step of a phase."""
        known = {key: value for key, value in values.items() if math.isfinite(value)}
        self._file.write(json.dumps({"phase": phase, "step": step, **known}) + "\n")
        self._file.flush()
        for key, value in known.items():
            self._events.add_scalar(f"{phase}/{key}", value, step)

    def text(self, key: str, value: str) -> None:
        """Log a text (the configuration, say)."""
        self._events.add_text(key, f"```\n{value}\n```")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._events.close()


def forget_metrics(run: Path) -> None:
    """Drop all logged lines: what wrote them begins again."""
    (run / METRICS_FILE).unlink(missing_ok=True)


def rewind_metrics(run: Path, phase: str, step: int, phases: tuple[str, ...]) -> None:
    """Drop logged lines from after a checkpoint, which a resumed run will write again."""
    path = run / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            place = (phases.index(entry["phase"]), entry["step"])
        except (ValueError, KeyError):
            continue  # a line that a crash cut off
        if place <= (phases.index(phase), step):
            kept.append(line + "\n")
    write_text_atomic(path, "".join(kept))
