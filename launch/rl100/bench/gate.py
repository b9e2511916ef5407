"""The benchmark ``gate``: what the offline stage's gate is good for.

From the imitated policy as many gated phases as an iteration has at most, with the gate and
without it; then the trial in the real task that follows. The critics are those of the run's first
iteration, or poor ones: bootstrapped only, a quarter of the optimiser steps.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from rl100.bench.frame import Bench, Figure, Options, mean, over_seeds
from rl100.bench.gate_plot import save_plot
from rl100.bench.learning_seeds import folder_name, for_each_seed, fresh_starts, opened, task_of
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import read_text, write_json_atomic

if TYPE_CHECKING:
    from rl100.learning import Learning
    from rl100_trainer.config import TrainConfig
    from rl100_trainer.networks.policy import DiffusionPolicy

RESULT, FOLDER = "gate.json", "gate"
POOR_CRITICS = "poor_critics"
CriticsKind = Literal["good", "poor"]
KINDS: tuple[CriticsKind, ...] = ("good", "poor")
TRIAL_SEEDS = 2_000_000  # start states of the trials
POOR_STEPS = 4  # part of the optimiser steps that poor critics have


def gate_seed(task: str, seed: int, run: Path, options: Options) -> dict[str, Any]:
    """Everything that one seed gave; measured once and kept in its run's folder."""
    if not (run / RESULT).is_file():
        with opened(task, seed, run, options, _check) as learning:
            write_json_atomic(run / RESULT, _Gated(learning, fresh_starts(options)).measure())
    return dict(json.loads(read_text(run / RESULT)))


def _check(config: TrainConfig) -> None:
    offline = config.offline
    wanted = offline.iterations and offline.check_episodes and offline.gate != "none"
    if config.run.algorithm != "rl100" or not wanted:
        raise ContractError(
            "the benchmark gate needs an offline stage with gate and trials: leave run.algorithm, "
            "offline.iterations, offline.check_episodes and offline.gate as they are"
        )


class _Gated:
    """The measurements on one run; each is done once, however often they are interrupted."""

    def __init__(self, learning: Learning, seeds: Sequence[int]) -> None:
        from rl100_trainer.stages.offline_iteration import OfflineIteration
        from rl100_trainer.stages.steps import Steps

        self._learning, self._training, self._seeds = learning, learning.training, seeds
        behaviour = learning.training.imitated()
        self._iteration = OfflineIteration(learning.training, 1, behaviour)
        self._iteration.prepare()
        self._journal = Steps(learning.run / FOLDER, learning.training.data_fingerprint)

    def measure(self) -> dict[str, Any]:
        before = self._successes("before", self._iteration.behaviour)
        result: dict[str, Any] = {
            "task": self._learning.problem.name,
            "seed": self._learning.config.run.seed,
            "episodes": len(self._seeds),
            "behaviour": before,
        }
        for kind in KINDS:
            verdicts = self._phases(kind, gate=True)
            gated = self._candidate(kind, gate=True)
            after = self._successes(f"{kind}_with", gated)
            refused = sum(not verdict["accepted"] for verdict in verdicts)
            free = after  # where the gate let everything pass it has changed nothing, bit for bit
            if refused:
                self._phases(kind, gate=False)
                free = self._successes(f"{kind}_without", self._candidate(kind, gate=False))
            trial = self._trial(f"{kind}_with", gated)
            result[kind] = {
                "gate_off": free,
                "gate": after,
                "gate_and_trial": after if trial["adopted"] else before,
                "refused": refused,
                "verdicts": verdicts,
                "trial": trial,
            }
        return result

    def _successes(self, name: str, policy: DiffusionPolicy) -> int:
        def evaluate(_: Path) -> dict[str, Any]:
            source = self._learning.source
            return {"successes": int(source.evaluate(policy, "k_step", self._seeds).success.sum())}

        return int(self._journal.do(f"{name}:evaluation", evaluate)["successes"])

    def _config(self, kind: CriticsKind, *, gate: bool) -> TrainConfig:
        from rl100_trainer.stages.offline_iteration import IMPROVEMENTS

        config = self._learning.config
        offline: dict[str, Any] = {"phases": config.offline.phases * IMPROVEMENTS}
        if not gate:
            offline["gate"] = "none"
        critic: dict[str, Any] = {}
        if kind == "poor":
            critic = {"monte_carlo": 0.0, "steps": max(1, config.critic.steps // POOR_STEPS)}
        return config.model_copy(
            update={
                "offline": config.offline.model_copy(update=offline),
                "critic": config.critic.model_copy(update=critic),
            }
        )

    def _critics_folder(self, kind: CriticsKind, config: TrainConfig) -> Path:
        """Where the critics are, after fitting poor ones."""
        from rl100_trainer.stages.improvement import fit_critics, save_critics

        training, iteration = self._training, self._iteration
        if kind == "good":
            return training.run_folder / iteration.name

        def fit(folder: Path) -> dict[str, Any]:
            critics, logs = fit_critics(
                iteration.behaviour,
                config,
                training.task,
                iteration.data,
                seed=iteration.seed,
                on_step=training.on_step,
            )
            save_critics(folder, critics)
            return dict(logs)

        self._journal.do(POOR_CRITICS, fit)
        return training.run_folder / FOLDER / POOR_CRITICS

    def _phases(self, kind: CriticsKind, *, gate: bool) -> list[dict[str, Any]]:
        """Verdicts of all phases; the policy that they end with is kept."""
        from rl100_trainer.stages.improvement import improve, load_critics

        training, iteration, config = self._training, self._iteration, self._config(kind, gate=gate)
        critics_folder = self._critics_folder(kind, config)

        def work(folder: Path) -> dict[str, Any]:
            policy = copy.deepcopy(iteration.behaviour)
            done = improve(
                policy,
                load_critics(critics_folder, policy, config, seed=iteration.seed),
                config,
                training.task,
                iteration.data,
                folder,
                seed=iteration.seed,
                on_step=training.on_step,
            )
            training.save(folder, policy)
            return {"verdicts": done.verdicts}

        return list(self._journal.do(f"{_case(kind, gate)}:phases", work)["verdicts"])

    def _candidate(self, kind: CriticsKind, *, gate: bool) -> DiffusionPolicy:
        return self._training.load(f"{FOLDER}/{_case(kind, gate)}")

    def _trial(self, name: str, candidate: DiffusionPolicy) -> dict[str, Any]:
        from rl100_trainer.stages.adoption import trial_result

        count = self._learning.config.offline.check_episodes

        def work(_: Path) -> dict[str, Any]:
            return trial_result(
                self._learning.source,
                candidate,
                self._iteration.behaviour,
                range(TRIAL_SEEDS, TRIAL_SEEDS + count),
                lambda done, total: self._training.on_step("trial", done, total, float("nan")),
                judged=True,
            )

        return self._journal.do(f"{name}:trial", work)


def _case(kind: CriticsKind, gate: bool) -> str:
    return f"{kind}_{'with' if gate else 'without'}"


def figures_of(results: Sequence[dict[str, Any]]) -> list[Figure]:
    """Figures over all seeds, with intervals that hold the spread between seeds."""
    episodes = [r["episodes"] for r in results]
    figures = [over_seeds("behaviour_success", [r["behaviour"] for r in results], episodes)]
    for kind in KINDS:
        for name in ("gate_off", "gate", "gate_and_trial"):
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
    results = for_each_seed(options, gate_seed, on_seed)
    picture = options.folder / folder_name(task_of(options), options) / "gate.png"
    Console(stderr=True).print(f"plot: {save_plot(results, picture)}", soft_wrap=True)
    return figures_of(results)


BENCH = Bench("gate", "offline improvement with and without its gate, good and poor critics", run)
