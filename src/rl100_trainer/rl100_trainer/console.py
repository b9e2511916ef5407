"""What a training command shows, and how Ctrl-C reaches it."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rl100_trainer.progress import Progress, ProgressCallback


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


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Bars on standard error, one per phase."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        known = {}

        def show(progress: Progress) -> None:
            if progress.phase not in known:
                known[progress.phase] = bars.add_task(progress.phase, total=None, note="")
            loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}"
            eta = "" if progress.eta_s < 0 else f", {progress.eta_s:.0f} s left"
            bars.update(
                known[progress.phase],
                completed=progress.step,
                total=progress.total or None,
                note=loss + eta,
            )

        yield show


@contextmanager
def progress_lines() -> Iterator[ProgressCallback]:
    """One JSON object per line on standard output, for programs."""

    def show(progress: Progress) -> None:
        values = {k: None if v != v else v for k, v in asdict(progress).items()}  # NaN isn't JSON
        print(json.dumps({"progress": values}), flush=True)

    yield show
