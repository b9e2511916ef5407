"""The driver of RL-100: imitate; M times roll out, improve and imitate again; learn online.

Every step leaves its result in a folder of its own and a line in ``steps.json``, so that a run goes
on after any interruption with the step that was cut off.

    <run>/il/             imitation of the demonstrations
    <run>/iteration_1/    the first offline iteration
    <run>/online/         checkpoint, curve
    <run>/bundle          what is deployed
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import ContractError
from rl100_trainer.baselines.wsrl import finetune
from rl100_trainer.checkpoint import CHECKPOINT, load_checkpoint, load_weights
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.runlog import RunLog, forget_metrics, rewind_metrics
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.loop import RunContext
from rl100_trainer.stages.offline_iteration import RETRAINING_TRIAL, OfflineIteration
from rl100_trainer.stages.online_stage import OnlineStage
from rl100_trainer.stages.runs import VALUE, TrainedPolicy, load_result, make_value, save_policy
from rl100_trainer.stages.start_states import choice_starts
from rl100_trainer.stages.steps import Result
from rl100_trainer.stages.training_run import TrainingRun

FEWEST_CHOICE_EPISODES = 5
CHOICE = 2  # times the episodes of a trial choose the online stage's best policy
CONFIRM = 3  # times as many start states confirm the end of the online stage as choose its best


class IterativeTraining(TrainingRun):
    """All stages on one task; call :meth:`run`."""

    @property
    def iterations(self) -> int:
        """Offline iterations of the configured algorithm."""
        return self.config.offline.iterations if self.config.run.algorithm == "rl100" else 0

    @property
    def retrainings(self) -> int:
        """Re-trainings by imitation that were adopted."""
        trials = [f"iteration_{n}:{RETRAINING_TRIAL}" for n in range(1, self.iterations + 1)]
        return sum(bool(self.steps[name]["adopted"]) for name in trials if name in self.steps)

    def run(self) -> TrainedPolicy:
        """All stages of the configured algorithm; returns the final policy."""
        policy = self.imitated()
        for number in range(1, self.iterations + 1):
            policy = OfflineIteration(self, number, policy).run()
        if self.iterations:
            self._save_once("offline", policy)
        if self.config.run.algorithm == "bc":
            return load_result(self.run_folder / "il" / "bundle")
        if self.config.run.algorithm == "wsrl":
            # A correction on top of the imitated policy: for comparison, not for deployment.
            self.journal.do("online", lambda folder: self._wsrl(folder, policy))
            return load_result(self.run_folder / "il" / "bundle")
        self.journal.do("online", lambda folder: self._online(folder, policy))
        final = self.load("online/policy")
        if not (self.run_folder / "bundle").exists():
            return self._export(final)
        return load_result(self.run_folder / "bundle")

    def imitated(self) -> DiffusionPolicy:
        """The policy that imitates the demonstrations, trained unless the run has it already."""
        self.journal.do("il", self._imitate)
        return self.load("il/bundle")

    def _save_once(self, name: str, policy: DiffusionPolicy) -> None:
        """The policy that the offline stage ends with, for whoever compares."""
        if not (self.run_folder / name / WEIGHTS).is_file():
            self.save(self.run_folder / name, policy)

    def _imitate(self, folder: Path) -> Result:
        chosen = [e for e in self.demonstrations if e.outcome in self.config.imitation.outcomes]
        result = train_imitation(
            self.config, self.task, chosen, folder, progress=self.progress, stop=self.stop
        )
        return {"metrics": result.metrics}

    def _online(self, folder: Path, policy: DiffusionPolicy) -> Result:
        value = make_value(policy, self.config.run.seed)
        last = self.run_folder / f"iteration_{self.iterations}" / VALUE
        if last.is_file():
            load_weights(value, last)
        seeds = self._choice_seeds()
        stage = OnlineStage(
            policy,
            value,
            self.source,
            self.config,
            seeds,
            range(seeds.stop, seeds.stop + CONFIRM * len(seeds)),
            fresh_value=not last.is_file(),
        )
        checkpoint = load_checkpoint(folder / CHECKPOINT)
        if checkpoint is not None:
            stage.restore(checkpoint)
            rewind_metrics(folder, "online", stage.env_steps, ("online",))
        with RunLog(folder) as log:
            context = RunContext(
                stage="online",
                run=folder,
                log=log,
                data=self.data_fingerprint,
                checkpoint_every=1,
                progress=self.progress,
                stop=self.stop,
            )
            stage.run(context)
        self.save(folder / "policy", policy)
        return {
            "env_steps": stage.env_steps,
            "curve": [[e.env_steps, e.success] for e in stage.curve],
        }

    def _wsrl(self, folder: Path, policy: DiffusionPolicy) -> Result:
        if not isinstance(self.source, VectorSource):
            raise ContractError("run.algorithm=wsrl learns in process: leave out --ros")
        total = self.config.online.env_steps
        forget_metrics(folder)  # an interrupted attempt begins again
        with RunLog(folder) as log:

            def on_round(env_steps: int, logs: dict[str, float]) -> None:
                log.scalars("online", env_steps, logs)
                report = self.on_step if env_steps < total else self.show
                report("online", min(env_steps, total), total, logs.get("critic_loss", math.nan))

            corrected, curve = finetune(
                self.source.pool,
                policy,
                self.transitions(self.demonstrations),
                self.config,
                total,
                on_round,
                max_steps=self.task.max_steps,
                seeds=self._choice_seeds(),
            )
        self.save(folder / "policy", corrected)
        return {"env_steps": curve[-1][0], "curve": [list(point) for point in curve]}

    def _choice_seeds(self) -> range:
        count = max(FEWEST_CHOICE_EPISODES, CHOICE * self.config.offline.check_episodes)
        return choice_starts(self.config.run.seed, count)

    def _export(self, policy: DiffusionPolicy) -> TrainedPolicy:
        data = self.transitions(self.demonstrations)
        metrics = {"online_env_steps": float(self.steps["online"]["env_steps"])}
        return save_policy(
            policy.cpu(),
            self.config,
            self.task,
            self.run_folder / "bundle",
            stage="online",
            parent=load_result(self.run_folder / "il" / "bundle").policy_version,
            observations=data.to(torch.device("cpu")).observed(slice(None)),
            metrics=metrics,
        )
