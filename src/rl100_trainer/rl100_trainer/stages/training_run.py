"""A run's folder and what its stages share: configuration, data, rollouts, finished steps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import Interrupted
from rl100_trainer.baselines.residual import ResidualPolicy
from rl100_trainer.checkpoint import load_weights, save_tensors
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.store import load_episodes
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import (
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
)
from rl100_trainer.rollouts.source import OnPolicySource
from rl100_trainer.stages.runs import choose_device, fingerprint, load_policy, open_run
from rl100_trainer.stages.steps import Result, Steps

ROLLOUTS = "rollouts.npz"
CANDIDATES = "candidate", "candidate_2"  # folder of each improvement of an iteration
RETRAINED = "imitate"  # folder of its re-training


class TrainingRun:
    """An open run of all stages on one task.

    Args:
        demonstrations: all of them, failures too: the gate is blind without.
        source: of rollouts.
        run: folder of the run; a run that was interrupted in it goes on.

    Raises:
        ContractError: the folder holds a run of another task, configuration or data.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: LearningTask,
        demonstrations: Sequence[EpisodeArrays],
        source: OnPolicySource,
        run: Path,
        *,
        progress: ProgressCallback = ignore_progress,
        stop: StopRequested = never_stop,
    ) -> None:
        self.config, self.task, self.source, self.run_folder = config, task, source, run
        self.demonstrations = list(demonstrations)
        self.progress, self.stop = progress, stop
        self.device = choose_device(config.run.device)
        self.data_fingerprint = fingerprint(self.demonstrations)
        open_run(run, config, task, self.data_fingerprint)
        self.journal = Steps(run, self.data_fingerprint)

    def on_step(self, phase: str, step: int, total: int, loss: float = math.nan) -> None:
        """Show progress; raises Interrupted where the run is to stop."""
        if self.stop():
            raise Interrupted(
                f"interrupted in {phase}; the same command goes on with this step of the run in "
                f"{self.run_folder}"
            )
        self.show(phase, step, total, loss)

    def show(self, phase: str, step: int, total: int, loss: float = math.nan) -> None:
        """Show progress of what can't be stopped."""
        self.progress(Progress("iterate", phase, step, total, loss))

    @property
    def env_steps(self) -> int:
        """Control steps of all rollouts so far, trials too.

        Evaluations that choose the online stage's best policy, and the diagnosis of the critics,
        aren't among them.
        """
        return self.journal.env_steps

    @property
    def wall_s(self) -> float:
        """Seconds of all steps so far, of interrupted attempts too."""
        return self.journal.seconds

    @property
    def steps(self) -> dict[str, Result]:
        """What each step came to, as in ``steps.json``."""
        return self.journal.results

    # --- data

    def episodes(self, number: int) -> list[EpisodeArrays]:
        """D_m: the demonstrations, the rollouts of the iterations up to ``number`` and, of those
        before it, the trials'."""
        merged = list(self.demonstrations)
        for iteration in range(1, number + 1):
            merged += load_episodes(self.run_folder / f"iteration_{iteration}" / ROLLOUTS)
            if iteration < number:
                for tried in (*CANDIDATES, RETRAINED):
                    merged += self.rollouts(f"iteration_{iteration}/{tried}")
        return merged

    def rollouts(self, folder: str) -> list[EpisodeArrays]:
        """The episodes kept in ``folder``, if any: not every candidate has had a trial."""
        path = self.run_folder / folder / ROLLOUTS
        return load_episodes(path) if path.is_file() else []

    def transitions(self, episodes: Sequence[EpisodeArrays]) -> Transitions:
        """The episodes' chunk transitions, on the run's device."""
        discount = self.config.critic.discount
        data = make_transitions(episodes, self.task.spec, discount, self.task.max_steps)
        return data.to(self.device)

    # --- policies

    def load(self, folder: str) -> DiffusionPolicy:
        """A policy that the run has kept in ``folder``."""
        if self.config.run.algorithm == "wsrl" and folder == "online/policy":
            base = load_policy(self.run_folder / "il" / "bundle", self.config, self.task.spec)
            corrected = ResidualPolicy(base, self.config, self.config.run.seed)
            load_weights(corrected, self.run_folder / folder / WEIGHTS)
            return corrected.to(self.device)
        policy = load_policy(self.run_folder / folder, self.config, self.task.spec)
        return policy.to(self.device)

    def save(self, folder: Path, policy: DiffusionPolicy) -> None:
        """Keep a policy's weights in ``folder``, all of them or none."""
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{WEIGHTS}"
        save_tensors(fresh, dict(policy.state_dict()))
        os.replace(fresh, folder / WEIGHTS)
