"""A run's directory: opening it, and the policies that are kept in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rl100_contracts.bundle import CONFIG, MANIFEST, WEIGHTS, load_manifest, publish_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import read_text, write_json_atomic, write_text_atomic
from rl100_trainer.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_tensors,
)
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.export import export_bundle
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.memory import keep_freed_memory
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.spec import PolicySpec

METRICS = "metrics.json"
VALUE = "value.safetensors"  # beside a run's bundle: V of its last data


@dataclass(frozen=True)
class TrainedPolicy:
    """What a run produced; a benchmark's bundle holds weights and metrics only."""

    bundle: Path
    policy_version: str
    metrics: dict[str, float]


def choose_device(wanted: str) -> torch.device:
    """The device of the configuration key ``run.device``, made ready; raises ContractError."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ContractError("run.device is cuda, but PyTorch sees no GPU: use run.device=cpu")
    gpu = wanted != "cpu" and torch.cuda.is_available()
    # TF32 would make recomputed log-probabilities differ from the recorded ones.
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    return torch.device("cuda" if gpu else "cpu")


def make_policy(spec: PolicySpec, config: TrainConfig) -> DiffusionPolicy:
    """A policy whose initial weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return DiffusionPolicy(spec, config)


def make_value(policy: DiffusionPolicy, seed: int) -> Critic:
    """A V of the policy's observations whose initial weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = Critic(policy.spec, policy.normaliser, with_action=False)
    return value.to(policy.normaliser.state_mean.device)


def check_horizon(config: TrainConfig, task: LearningTask) -> None:
    """Refuse chunks that are shorter than what is executed of them; raises ContractError."""
    horizon = config.model.horizon
    if horizon is not None and horizon < task.spec.n_action_steps:
        raise ContractError(
            f"model.horizon {horizon} is below the {task.spec.n_action_steps} actions that "
            f"task '{task.name}' executes per decision"
        )


def fingerprint(episodes: Sequence[EpisodeArrays]) -> str:
    """Hash of the training data, so that a run isn't resumed on other data."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(f"{episode.episode_id} {episode.outcome}".encode())
        seen = (episode.states, episode.clouds, episode.images)
        for array in (*seen, episode.actions, episode.rewards):
            digest.update(array.tobytes())
    return digest.hexdigest()


def open_run(run: Path, config: TrainConfig, task: LearningTask, data: str) -> Checkpoint | None:
    """Prepare the run's directory; returns the checkpoint to go on from.

    Raises:
        ContractError: the configuration doesn't fit the task (nothing is written then), or the
            directory holds another run.
    """
    check_horizon(config, task)
    if (run / MANIFEST).exists():
        raise ContractError(f"{run}: this is a bundle, which is never changed: give another folder")
    saved_config, saved_task = run / "config.yaml", run / "task.yaml"
    if saved_config.exists():
        # By value: a key that came later has its default in a run that was begun before.
        if load_config(saved_config) != config:
            raise ContractError(
                f"{saved_config}: another configuration than the one given now: give the same one "
                "to go on with this run, or another folder for a new one"
            )
        if saved_task.exists() and saved_task.read_text(encoding="utf-8") != task.to_yaml():
            raise ContractError(
                f"{saved_task}: another task than the one given now: give another folder"
            )
        checkpoint = load_checkpoint(run / CHECKPOINT)
        if checkpoint is not None and checkpoint.state.data != data:
            raise ContractError(
                f"{run}: this run was started with other episodes: give another folder"
            )
        return checkpoint
    run.mkdir(parents=True, exist_ok=True)
    write_text_atomic(saved_task, task.to_yaml())
    write_text_atomic(saved_config, config.to_yaml())
    return None


def save_policy(
    policy: DiffusionPolicy,
    config: TrainConfig,
    task: LearningTask,
    bundle: Path,
    *,
    stage: str,
    parent: str,
    observations: tuple[Tensor, Tensor, Tensor],
    metrics: Mapping[str, float],
) -> TrainedPolicy:
    """Export a bundle, or save the weights alone where the task has no contract.

    Raises:
        ContractError: the export isn't faithful, or ``bundle`` exists.
    """
    if task.contract is not None:
        manifest = export_bundle(
            policy,
            config,
            task.contract,
            bundle,
            stage=stage,
            parent=parent,
            observations=observations,
            metrics=metrics,
        )
        return TrainedPolicy(bundle, manifest.policy_version, manifest.metrics)
    staging = bundle.with_name(f".{bundle.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_tensors(staging / WEIGHTS, dict(policy.state_dict()))
    write_text_atomic(staging / CONFIG, config.to_yaml())
    write_json_atomic(staging / METRICS, dict(metrics))
    publish_bundle(staging, bundle)
    return load_result(bundle)


def load_result(bundle: Path) -> TrainedPolicy:
    """What an earlier run saved; raises ContractError."""
    if (bundle / METRICS).is_file():
        metrics = json.loads(read_text(bundle / METRICS))
        return TrainedPolicy(bundle, "", metrics)
    manifest = load_manifest(bundle)
    return TrainedPolicy(bundle, manifest.policy_version, manifest.metrics)


def load_policy(bundle: Path, config: TrainConfig, spec: PolicySpec) -> DiffusionPolicy:
    """The policy of a bundle, on the CPU.

    Raises:
        ContractError: the weights are unreadable, or of other networks than ``config`` describes.
    """
    policy = make_policy(spec, config)
    load_weights(policy, bundle / WEIGHTS)
    return policy
