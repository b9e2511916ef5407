"""What a training command shows, and how Ctrl-C reaches it."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO

from rl100_trainer.progress import Progress, ProgressCallback

LINE_EVERY_S = 20.0  # without a terminal: between two lines of the same phase


class StopFlag:
    """Turns SIGINT and SIGTERM into a question that training asks between two steps."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        return self.requested

    def _handle(self, *_: object) -> None:
        if self.requested:  # a second Ctrl-C doesn't wait
            raise KeyboardInterrupt
        self.requested = True

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals inside the with block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@dataclass
class Pace:
    """How fast a phase goes: where and when it was first seen, s, and the last step."""

    first: int
    since_s: float
    last: int

    def remaining_s(self, progress: Progress, now_s: float) -> float:
        """Seconds that it will take, by what it says itself or by its pace; -1: not known yet."""
        if progress.eta_s >= 0.0:
            return progress.eta_s
        done = progress.step - self.first
        if done <= 0 or progress.total <= 0:
            return -1.0
        return (now_s - self.since_s) / done * max(0, progress.total - progress.step)


class Paces:
    """The pace of every phase; one that begins again, as each iteration's do, is a new one."""

    def __init__(self) -> None:
        self._known: dict[str, Pace] = {}

    def at(self, progress: Progress) -> tuple[bool, float]:
        """Whether the phase begins (again), and the seconds that it will take (-1: not known)."""
        now_s, known = time.monotonic(), self._known.get(progress.phase)
        fresh = known is None or progress.step < known.last
        if known is None or fresh:
            known = self._known[progress.phase] = Pace(progress.step, now_s, progress.step)
        known.last = progress.step
        return fresh, known.remaining_s(progress, now_s)


class PlainLines:
    """Progress where there is no terminal: a line now and then, for whoever reads the log."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._paces = Paces()
        self._said: dict[str, float] = {}

    def show(self, progress: Progress, note: str = "") -> None:
        """Say it if the phase begins or ends, or nothing was said of it for a while.

        Args:
            note: what else there is to say.
        """
        fresh, eta_s = self._paces.at(progress)
        name, step, total = progress.phase, progress.step, progress.total
        now_s, over = time.monotonic(), 0 < total <= step
        if not (fresh or over or now_s - self._said.get(name, -math.inf) >= LINE_EVERY_S):
            return
        self._said[name] = now_s
        words = [f"{name} {step}{f'/{total}' if total else ''}", note, _note(progress, eta_s)]
        print(", ".join(word for word in words if word), file=self._stream, flush=True)


def _note(progress: Progress, eta_s: float) -> str:
    over = 0 < progress.total <= progress.step
    parts = ["" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}"]
    parts += ["" if eta_s < 0.0 or over else f"{eta_s:.0f} s left"]
    return ", ".join(part for part in parts if part)


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Bars on standard error, one per phase; without a terminal, lines."""
    from rich.console import Console

    console, paces = Console(stderr=True), Paces()
    if not console.is_terminal:
        yield PlainLines().show
        return

    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=console) as bars:
        known: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            fresh, eta_s = paces.at(progress)
            if progress.phase not in known:
                known[progress.phase] = bars.add_task(progress.phase, total=None, note="")
            elif fresh:
                bars.reset(known[progress.phase])
            bars.update(
                known[progress.phase],
                completed=progress.step,
                total=progress.total or None,
                note=_note(progress, eta_s),
            )

        yield show


@contextmanager
def progress_lines() -> Iterator[ProgressCallback]:
    """One JSON object per line on standard output, for programs."""

    def show(progress: Progress) -> None:
        values = {k: None if v != v else v for k, v in asdict(progress).items()}  # NaN isn't JSON
        print(json.dumps({"progress": values}), flush=True)

    yield show
