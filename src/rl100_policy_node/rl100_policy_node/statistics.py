"""How fast and how evenly decisions are made. No ROS in here."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rl100_node.figures import Window

WINDOW = 1000
REPORT_WINDOW = 20_000


@dataclass(frozen=True)
class Latency:
    """Over the last 1000 decisions, ms; zeros before the first.

    Attributes:
        model: p50 and p99 of the inference.
        decision: p50 and p99 from the last message of the observation taken to the chunk published.
    """

    model: tuple[float, float]
    decision: tuple[float, float]


class Statistics:
    """Figures of the decisions with one bundle and sampler, and of the whole run.

    One thread adds, others may read. ``inferences``, ``overruns`` (later than one control period
    after the observation's stamp) and ``missed`` (deadlines that passed without a decision) count
    since ``reset``.
    """

    def __init__(self) -> None:
        self._model, self._decision = Window(WINDOW), Window(WINDOW)
        self._run_model, self._run_decision = Window(REPORT_WINDOW), Window(REPORT_WINDOW)
        self._versions: list[str] = []
        self._run = [0, 0, 0]
        self._since = time.monotonic()
        self._rate_from = (self._since, 0)
        self.rate_hz = 0.0
        self.inferences = self.overruns = self.missed = 0

    def reset(self) -> None:
        """Another bundle or sampler: start afresh; the run goes on."""
        self._run = self._totals()
        self.inferences = self.overruns = self.missed = 0
        self._model.clear()
        self._decision.clear()

    def _totals(self) -> list[int]:
        counts = (self.inferences, self.overruns, self.missed)
        return [before + now for before, now in zip(self._run, counts, strict=True)]

    def add(self, version: str, model_ms: float, decision_ms: float, late: bool) -> None:
        """One decision was published."""
        if not self._totals()[0]:
            self._since = time.monotonic()  # before that nobody asked for one
        self.inferences += 1
        self.overruns += late
        for window in (self._model, self._run_model):
            window.add(model_ms)
        for window in (self._decision, self._run_decision):
            window.add(decision_ms)
        if not self._versions or self._versions[-1] != version:
            self._versions.append(version)

    def latency(self) -> Latency:
        """Over the last 1000 decisions."""
        model, decision = self._model.percentiles(50, 99), self._decision.percentiles(50, 99)
        return Latency((model[0], model[1]), (decision[0], decision[1]))

    def measure_rate(self) -> None:
        """Set ``rate_hz`` to the decisions per second since the last call."""
        now, total = time.monotonic(), self._totals()[0]
        since, before = self._rate_from
        self.rate_hz = (total - before) / max(now - since, 1e-6)
        self._rate_from = (now, total)

    def report(self) -> list[str]:
        """The run in a few lines; empty when nothing was decided."""
        decisions, late, missed = self._totals()
        if not decisions:
            return []
        seconds = time.monotonic() - self._since
        share = 100.0 * missed / (decisions + missed)
        versions = ", ".join(self._versions[-3:])
        if len(self._versions) > 3:
            versions = f"{len(self._versions)} changes of bundle, at last {versions}"
        lines = [
            f"run report: {decisions} decisions in {seconds:.1f} s "
            f"({decisions / max(seconds, 1e-6):.2f} per second), {versions}",
            f"  missed deadlines {missed} ({share:.2f} %), later than a control period {late}",
        ]
        for name, window in (
            ("model", self._run_model),
            ("observation to chunk", self._run_decision),
        ):
            p50, p99 = window.percentiles(50, 99)
            lines.append(f"  {name} ms: p50 {p50:.2f}, p99 {p99:.2f}, max {window.largest:.2f}")
        return lines
