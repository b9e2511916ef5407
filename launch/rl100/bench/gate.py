"""The benchmark ``gate``: what the offline stage's gate is good for.

From the imitated policy as many gated phases as an iteration has at most, with the gate and
without it; then the trial in the real task that follows. The critics are those of the run's first
iteration, or poor ones: bootstrapped only, a quarter of the optimiser steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl100.bench.frame import Bench, Figure, Options, mean, over_seeds
from rl100.bench.gate_plot import CASES, TITLES, save_plot
from rl100.bench.learning_seeds import fresh_starts, measured, opened
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import read_text, write_json_atomic

if TYPE_CHECKING:
    from rl100_trainer.config import TrainConfig

RESULT = "gate.json"


def gate_seed(task: str, seed: int, run: Path, options: Options) -> dict[str, Any]:
    """Everything that one seed gave; measured once and kept in its run's folder."""
    if not (run / RESULT).is_file():
        with opened(task, seed, run, options, _check) as learning:
            from rl100.bench.gated_phases import GatedPhases

            write_json_atomic(run / RESULT, GatedPhases(learning, fresh_starts(options)).measure())
    return dict(json.loads(read_text(run / RESULT)))


def _check(config: TrainConfig) -> None:
    offline = config.offline
    wanted = offline.iterations and offline.check_episodes and offline.gate != "none"
    if config.run.algorithm != "rl100" or not wanted:
        raise ContractError(
            "the benchmark gate needs an offline stage with gate and trials: leave run.algorithm, "
            "offline.iterations, offline.check_episodes and offline.gate as they are"
        )


def figures_of(results: Sequence[dict[str, Any]]) -> list[Figure]:
    """Figures over all seeds, with intervals that hold the spread between seeds."""
    episodes = [r["episodes"] for r in results]
    figures = [over_seeds("behaviour_success", [r["behaviour"] for r in results], episodes)]
    for kind in TITLES:
        for name in CASES:
            successes = [r[kind][name] for r in results]
            figures.append(over_seeds(f"{kind}_critics_{name}_success", successes, episodes))
        refused = [float(r[kind]["refused"]) for r in results]
        figures.append(mean(f"{kind}_critics_refused", refused, "phases", keep=True))
    return figures


def run(options: Options, on_seed: Callable[[int], None] = lambda _: None) -> list[Figure]:
    """Measure with every seed; a run that was interrupted goes on.

    Raises:
        ContractError: an unknown task or configuration, one without an offline stage, or training
            that fails.
        Interrupted: after Ctrl-C; the same command goes on.
    """
    return figures_of(measured(options, gate_seed, save_plot, "gate.png", on_seed))


BENCH = Bench("gate", "offline improvement with and without its gate, good and poor critics", run)
