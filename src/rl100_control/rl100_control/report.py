"""What a gateway did in a run, counted: for the diagnostics and the report at the end. No ROS."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable

from rl100_control.tick import Mode, Tick
from rl100_node.realtime import LoopFigures

# Sentences with numbers in them are counted together, and so many kinds are told apart.
NUMBER = re.compile(r"(?<!\w)-?\d+(\.\d+)?")
MOST_KINDS = 30
# A longer time without a tick is no uneven loop: nothing was to be done (idle, no feedback).
PAUSE_S = 1.0


class RunReport:
    """Counts ticks by what became of them.

    Args:
        monotonic: time that never jumps, s.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._begin = self._last = monotonic()
        self._ticking_s, self._intervals = 0.0, 0
        self.ticks = 0
        self.holds: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        self.deviation = self.largest_deviation = 0.0
        self._deviations, self._shadowed, self._shadowing = 0.0, 0, False
        self._mode: Mode | None = None

    def add(self, tick: Tick) -> None:
        """Count one tick."""
        now, before = self._monotonic(), self._last
        if self.ticks and now - before < PAUSE_S:
            self._ticking_s, self._intervals = self._ticking_s + now - before, self._intervals + 1
        self._last = now
        self.ticks += 1
        if tick.mode is Mode.SHADOW and self._mode is not Mode.SHADOW:
            self.deviation = self.largest_deviation = self._deviations = 0.0
            self._shadowed = 0
        self._mode = tick.mode
        self._shadowing = tick.mode is Mode.SHADOW or tick.shadow is not None
        if tick.hold:
            self._count(self.holds, tick.reason)
        elif tick.limited:
            for limit in tick.reason.removeprefix("limited: ").split(", "):
                self._count(self.limited, limit)
        if tick.shadow is not None:
            self.deviation = tick.shadow.deviation
            self.largest_deviation = max(self.largest_deviation, self.deviation)
            self._deviations += self.deviation
            self._shadowed += 1

    @staticmethod
    def _count(counter: Counter[str], reason: str) -> None:
        kind = NUMBER.sub("…", reason)
        counter[kind if kind in counter or len(counter) < MOST_KINDS else "other reasons"] += 1

    @property
    def mean_deviation(self) -> float:
        """Mean since shadowing began, m or rad; 0 before the first."""
        return self._deviations / self._shadowed if self._shadowed else 0.0

    def values(self, loop: LoopFigures | None) -> dict[str, object]:
        """Figures for the diagnostics; ``loop``: of a run in real time."""
        figures: dict[str, object] = {"ticks": self.ticks}
        if loop is not None:
            figures |= {
                "missed ticks": loop.missed,
                "lateness p50, ms": round(loop.late_p50_ms, 3),
                "lateness p99, ms": round(loop.late_p99_ms, 3),
                "lateness max, ms": round(loop.late_max_ms, 3),
            }
        figures["holds"] = sum(self.holds.values())
        figures |= {f"held: {reason}": count for reason, count in self.holds.most_common()}
        figures |= {f"limited: {limit}": count for limit, count in self.limited.most_common()}
        if self._shadowed and self._shadowing:
            figures["shadow deviation, mean"] = round(self.mean_deviation, 6)
            figures["shadow deviation, largest"] = round(self.largest_deviation, 6)
        return figures

    def text(self, loop: LoopFigures | None) -> str:
        """The report at the end of a run, some lines."""
        seconds, rate = self._ticking_s, self._intervals / max(self._ticking_s, 1e-6)
        idle_s = self._monotonic() - self._begin - seconds
        lines = [
            f"run report: {rate:.2f} ticks/s over {seconds:.1f} s, and {idle_s:.1f} s without "
            "ticks (idle, or no feedback yet)"
        ]
        lines += [f"  {name}: {value}" for name, value in self.values(loop).items()]
        return "\n".join(lines)
