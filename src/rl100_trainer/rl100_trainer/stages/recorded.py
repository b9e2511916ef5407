"""Offline and online reinforcement learning on recorded bags, one command each.

For robots whose rollouts are recorded by people: `offline` improves the previous run's policy on
all data so far, behind the gate; `online` is one on-policy update on rollouts of the previous
policy. A run's folder holds its bundle, V and the learner's state; the next run goes on from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.errors import ContractError, Interrupted
from rl100_contracts.task import Task
from rl100_trainer.checkpoint import (
    load_optimizer,
    load_tensors,
    load_weights,
    optimizer_tensors,
    save_tensors,
    with_prefix,
)
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays, make_windows
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import (
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
)
from rl100_trainer.rollouts.trajectory import trajectory_of_episode
from rl100_trainer.runlog import RunLog
from rl100_trainer.stages.improvement import fit_critics, improve
from rl100_trainer.stages.online import MINIBATCHES, OnlineLearner
from rl100_trainer.stages.online_stage import WARM_UP_ROUNDS
from rl100_trainer.stages.runs import (
    VALUE,
    TrainedPolicy,
    choose_device,
    fingerprint,
    load_policy,
    make_value,
    open_run,
    save_policy,
)

LEARNER = "learner.safetensors"
OPTIMIZERS = ("actor", "student", "critic")
FEWEST_DECISIONS = 8 * MINIBATCHES  # fewer say nothing about which of them were better


@dataclass
class RecordedStage:
    """One stage on recorded episodes.

    Args:
        previous: run that it goes on from (with ``bundle/``).
        run: new folder.
    """

    config: TrainConfig
    contract: Task
    episodes: Sequence[EpisodeArrays]
    previous: Path
    run: Path
    progress: ProgressCallback = ignore_progress
    stop: StopRequested = never_stop

    def _open(self, stage: str) -> DiffusionPolicy:
        self.task = LearningTask.of(self.contract)
        self.stage = stage
        self.parent = verify_bundle(self.previous / "bundle", self.contract).policy_version
        if self.run.resolve() == self.previous.resolve():
            raise ContractError(f"{self.run}: is the run that is gone on from: give a new folder")
        policy = load_policy(self.previous / "bundle", self.config, self.task.spec)
        return policy.to(choose_device(self.config.run.device))

    def _begin(self) -> None:
        """Now that everything is known to be good, the folder is this run's."""
        open_run(self.run, self.config, self.task, fingerprint(self.episodes))
        if (self.run / "bundle").exists():
            raise ContractError(f"{self.run}: this run is finished: give another folder")

    def _on_step(self, phase: str, step: int, total: int, loss: float) -> None:
        if self.stop():
            raise Interrupted(
                f"interrupted in {phase}; nothing of {self.previous} was changed, and the same "
                "command begins again"
            )
        self.progress(Progress(self.stage, phase, step, total, loss))

    def _save(self, policy: DiffusionPolicy, metrics: dict[str, float]) -> TrainedPolicy:
        windows = make_windows(self.episodes, self.task.spec, policy.horizon)
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        return save_policy(
            policy.cpu(),
            self.config,
            self.task,
            self.run / "bundle",
            stage=self.stage,
            parent=self.parent,
            observations=windows.observed,
            metrics={**known, "episodes": float(len(self.episodes))},
        )

    def offline(self) -> TrainedPolicy:
        """Gated improvement on all data.

        Raises:
            ContractError: the gate let nothing pass, so that there is no new policy.
            Interrupted: ``stop`` returned True.
        """
        policy = self._open("offline")
        self._begin()
        seed = self.config.run.seed
        learnt = self.config, self.task, self.episodes
        critics, logs = fit_critics(policy, *learnt, seed=seed, on_step=self._on_step)
        done = improve(policy, critics, *learnt, self.run, seed=seed, on_step=self._on_step)
        if not done.accepted:
            raise ContractError(
                f"no improvement passed the gate, so the policy {self.parent} stays; the last "
                f"verdict: {done.verdicts[-1]['reason']}"
            )
        save_tensors(self.run / VALUE, dict(critics.v.state_dict()))
        last = [verdict for verdict in done.verdicts if verdict["accepted"]][-1]
        figures = {k: float(last[k]) for k in ("j_behaviour", "j_candidate") if last[k] is not None}
        phases = {"accepted": float(done.accepted), "phases": float(len(done.verdicts))}
        return self._save(policy, {**logs, **done.logs, **figures, **phases})

    def online(self) -> TrainedPolicy:
        """One on-policy update.

        Raises:
            ContractError: no episode was recorded with the previous run's policy, chains included,
                or they are too few.
            Interrupted: ``stop`` returned True.
        """
        policy = self._open("online")
        own = self._on_policy()
        chunk, discount = self.task.spec.n_action_steps, self.config.critic.discount
        runs = [trajectory_of_episode(e, discount, chunk, self.task.max_steps) for e in own]
        decisions = sum(len(run) for run in runs)
        if decisions < FEWEST_DECISIONS:
            raise ContractError(
                f"the {len(own)} episodes of the policy {self.parent} hold {decisions} decisions, "
                f"and an update takes {FEWEST_DECISIONS} or more: record a few dozen rollouts"
            )
        self._begin()
        value = make_value(policy, self.config.run.seed)
        warm = (self.previous / VALUE).is_file()
        if warm:
            load_weights(value, self.previous / VALUE)
        learner = OnlineLearner(policy, value, self.config, self.config.run.seed)
        self._continue(learner)
        with RunLog(self.run) as log:
            rounds = 1 if warm else 1 + WARM_UP_ROUNDS
            for number in range(rounds):
                self._on_step("update", number, rounds, float("nan"))
                logs = learner.update(runs, 0.0, critic_only=number < rounds - 1)
                log.scalars("online", number, logs)
            self._on_step("update", rounds, rounds, logs["value_loss"])
        save_tensors(self.run / VALUE, dict(value.state_dict()))
        state = {"pace": Tensor([learner.pace])}
        for name in OPTIMIZERS:
            state |= with_prefix(name, optimizer_tensors(getattr(learner, name)))
        save_tensors(self.run / LEARNER, state)
        success = sum(e.outcome == "success" for e in own) / len(own)
        return self._save(policy, {**logs, "rollout_success": success})

    def _on_policy(self) -> list[EpisodeArrays]:
        """The episodes of the very policy that is updated, with their chains."""
        own = [e for e in self.episodes if e.source == self.parent and e.chains is not None]
        if not own:
            raise ContractError(
                f"no episode was recorded with the policy {self.parent} and its denoising chains: "
                "online learning needs stochastic rollouts of the very policy that it goes on from"
            )
        steps = {len(e.chains[0]) - 1 for e in own if e.chains is not None and len(e.chains)}
        if steps - {self.config.diffusion.steps}:
            raise ContractError(
                f"diffusion.steps is {self.config.diffusion.steps}, but the rollouts were recorded "
                f"with {', '.join(map(str, sorted(steps)))} denoising steps: leave it as it was"
            )
        return own

    def _continue(self, learner: OnlineLearner) -> None:
        """Take over optimisers and pace where the previous run was an online one."""
        path = self.previous / LEARNER
        if not path.is_file():
            return
        tensors = load_tensors(path)
        learner.pace = float(tensors["pace"])
        for name in OPTIMIZERS:
            own = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            if own:
                load_optimizer(getattr(learner, name), own)
