"""One offline improvement: critics on a set of data, then the gated phases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl100_contracts.errors import ContractError
from rl100_trainer.checkpoint import load_weights, save_tensors
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics, OnStep
from rl100_trainer.runlog import RunLog, forget_metrics
from rl100_trainer.stages.offline import OfflineLearner
from rl100_trainer.stages.runs import VALUE

PHASE_SEEDS = 1000
Q = "q.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Improvement:
    """What was logged of the gate's own networks, and each phase's verdict and means."""

    logs: dict[str, float]
    verdicts: list[dict[str, Any]]

    @property
    def accepted(self) -> int:
        """Phases that the gate let pass."""
        return sum(bool(verdict["accepted"]) for verdict in self.verdicts)


def save_critics(folder: Path, critics: OfflineCritics) -> None:
    """Write Q and V; V alone is what a later online stage starts from."""
    save_tensors(folder / Q, dict(critics.q.state_dict()))
    save_tensors(folder / VALUE, dict(critics.v.state_dict()))


def load_critics(
    folder: Path, policy: DiffusionPolicy, config: TrainConfig, *, seed: int = 0
) -> OfflineCritics:
    """Critics with the Q and V that :func:`save_critics` wrote; raises ContractError."""
    critics = OfflineCritics(policy, config.critic, seed, config.augmentation)
    load_weights(critics.q, folder / Q)
    load_weights(critics.v, folder / VALUE)
    return critics


def _transitions(
    policy: DiffusionPolicy,
    config: TrainConfig,
    task: LearningTask,
    episodes: Sequence[EpisodeArrays],
) -> Transitions:
    device = policy.normaliser.state_mean.device
    data = make_transitions(episodes, task.spec, config.critic.discount, task.max_steps)
    return data.to(device)


def fit_critics(
    policy: DiffusionPolicy,
    config: TrainConfig,
    task: LearningTask,
    episodes: Sequence[EpisodeArrays],
    *,
    seed: int,
    on_step: OnStep,
) -> tuple[OfflineCritics, dict[str, float]]:
    """Q and V of the episodes, and what was logged of them.

    Args:
        policy: its normaliser gives the units of actions.
        episodes: with failures, or the critics can't tell good from bad.
        on_step: called after each optimiser step; may raise to stop.

    Raises:
        ContractError: too few episodes to learn from.
    """
    data = _transitions(policy, config, task, episodes)
    # A chunk whose next observation is known: gaps cut episodes into pieces, which may be short.
    if len(episodes) < 2 or int((data.discounts[data.rows] > 0.0).sum()) < 2:
        raise ContractError(
            f"offline learning needs two episodes or more with pieces that are longer than one "
            f"action chunk ({task.spec.n_action_steps} steps); there are {len(episodes)} episodes: "
            "record more"
        )
    critics = OfflineCritics(policy, config.critic, seed, config.augmentation)
    return critics, critics.fit_values(data, on_step)


def improve(
    policy: DiffusionPolicy,
    critics: OfflineCritics,
    config: TrainConfig,
    task: LearningTask,
    episodes: Sequence[EpisodeArrays],
    folder: Path,
    *,
    seed: int,
    on_step: OnStep,
) -> Improvement:
    """Improve ``policy`` in place; after a refused phase it is what it was before that phase.

    Args:
        critics: of ``policy``, with Q and V of the episodes.
        episodes: with failures: the gate refuses to judge on data of one outcome.
        folder: of the logs.
        on_step: called after each optimiser step; may raise to stop.
    """
    outcomes = {episode.outcome for episode in episodes}
    if len({"success", "failure"} & outcomes) < 2:
        _log.warning(
            "the data hold episodes of one outcome only: off-policy evaluation is blind on them, "
            "and the gate will refuse every candidate; record and keep both"
        )
    data = _transitions(policy, config, task, episodes)
    learner = OfflineLearner(
        policy,
        critics,
        data,
        config,
        max_steps=task.max_steps,
        success_reward=task.success_reward,
        seed=seed,
    )
    logs = critics.fit_judge(data, learner.conditions, on_step)
    verdicts = []
    forget_metrics(folder)  # an interrupted attempt begins again
    with RunLog(folder) as log:
        log.scalars("judge", config.critic.steps, logs)
        for phase in range(config.offline.phases):
            # A refusal puts the random numbers back too: the next attempt needs others.
            learner.generator.manual_seed(seed * PHASE_SEEDS + phase)
            result = learner.phase(outcomes, on_step)
            entry = {**result.verdict.as_dict(), **result.logs}
            verdicts.append(entry)
            numbers = {k: float(v) for k, v in entry.items() if isinstance(v, (bool, int, float))}
            log.scalars("gate", phase, numbers)
    return Improvement(logs, verdicts)
