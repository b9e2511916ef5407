"""What the gate and the trial make of an improvement, with good critics and poor ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rl100.learning import Learning
from rl100_trainer.config import TrainConfig
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.stages.offline_iteration import IMPROVEMENTS, OfflineIteration
from rl100_trainer.stages.steps import Result, Steps

FOLDER, POOR_CRITICS = "gate", "poor_critics"
CriticsKind = Literal["good", "poor"]
KINDS: tuple[CriticsKind, ...] = ("good", "poor")
TRIAL_SEEDS = 2_000_000  # start states of the trials
POOR_STEPS = 4  # part of the optimiser steps that poor critics have


class GatedPhases:
    """The measurements on one run; each is done once, however often they are interrupted.

    Args:
        seeds: start states on which policies are measured.
    """

    def __init__(self, learning: Learning, seeds: Sequence[int]) -> None:
        self._learning, self._training, self._seeds = learning, learning.training, seeds
        self._iteration = OfflineIteration(self._training, 1, self._training.imitated())
        self._iteration.prepare()
        self._folder = self._training.run_folder / FOLDER
        self._journal = Steps(self._folder, self._training.data_fingerprint)

    def measure(self) -> dict[str, Any]:
        """Successes before and after, verdicts and trials, for JSON."""
        before = self._successes("before", self._iteration.behaviour)
        result: dict[str, Any] = {
            "task": self._learning.problem.name,
            "seed": self._learning.config.run.seed,
            "episodes": len(self._seeds),
            "behaviour": before,
        }
        return result | {kind: self._measure(kind, before) for kind in KINDS}

    def _measure(self, kind: CriticsKind, before: int) -> dict[str, Any]:
        verdicts, gated, after = self._phases(kind, gate=True)
        refused = sum(not verdict["accepted"] for verdict in verdicts)
        # Where the gate let everything pass it has changed nothing, bit for bit.
        free = self._phases(kind, gate=False)[2] if refused else after
        starts = range(TRIAL_SEEDS, TRIAL_SEEDS + self._learning.config.offline.check_episodes)
        behaviour = self._iteration.behaviour
        trial = self._journal.do(
            f"{kind}_with:trial",
            lambda _: self._iteration.trial(gated, behaviour, starts, judged=True).as_dict(),
        )
        return {
            "gate_off": free,
            "gate": after,
            "gate_and_trial": after if trial["adopted"] else before,
            "refused": refused,
            "verdicts": verdicts,
            "trial": trial,
        }

    def _successes(self, name: str, policy: DiffusionPolicy) -> int:
        def evaluate(_: Path) -> Result:
            outcomes = self._learning.source.evaluate(policy, "k_step", self._seeds)
            return {"successes": int(outcomes.success.sum())}

        return int(self._journal.do(f"{name}:evaluation", evaluate)["successes"])

    def _config(self, kind: CriticsKind, *, gate: bool) -> TrainConfig:
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

    def _phases(
        self, kind: CriticsKind, *, gate: bool
    ) -> tuple[list[dict[str, Any]], DiffusionPolicy, int]:
        """Verdicts of all phases, the policy that they end with, and its successes."""
        iteration, config = self._iteration, self._config(kind, gate=gate)
        critics = self._training.run_folder / iteration.name
        if kind == "poor":
            critics = self._folder / POOR_CRITICS
            self._journal.do(POOR_CRITICS, lambda own: iteration.fit_critics(own, config)[1])
        name = f"{kind}_{'with' if gate else 'without'}"
        behaviour, seed = iteration.behaviour, iteration.seed
        done = self._journal.do(
            f"{name}:phases", lambda own: iteration.improve(own, behaviour, critics, config, seed)
        )
        policy = self._training.load(f"{FOLDER}/{name}")
        return list(done["verdicts"]), policy, self._successes(name, policy)
