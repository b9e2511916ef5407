"""Resumable checkpoints without pickle: safetensors for tensors, JSON for everything else."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import StrictModel, load_json_model, sync, write_json_atomic
from rl100_trainer.disc import cannot_be_written

CHECKPOINT = "checkpoint"  # folder in a run's
STATE_FILE = "state.json"
TENSOR_FILE = "tensors.safetensors"
LONGEST_REASON = 160


class CheckpointState(StrictModel):
    """What isn't a tensor."""

    format_version: Literal[1] = 1
    stage: str
    phase: str
    step: int = Field(ge=0)
    data: str = Field(description="fingerprint of the training data")
    metrics: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """State and tensors (their names are prefixed with the part that they belong to)."""

    state: CheckpointState
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of one part, without its prefix."""
        start = f"{prefix}."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names with the prefix of their part."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Save tensors as safetensors (shared memory and strides resolved)."""
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(path))
    path.chmod(0o644)  # it makes 0600; runs and bundles are shared within a lab
    sync(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load safetensors; raises ContractError."""
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from None


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network.

    Raises:
        ContractError: the file is unreadable, or of another network.
    """
    try:
        network.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = lines[min(1, len(lines) - 1)].strip()
        if len(reason) > LONGEST_REASON:  # it names every key
            reason = f"{reason[:LONGEST_REASON]}…"
        raise ContractError(
            f"{path}: doesn't fit the networks of this configuration ({reason})"
        ) from None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a crash leaves the old or the new one, never half of one.

    Raises:
        ContractError: it can't be written (a full disc, say); the last one is kept.
    """
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        save_tensors(fresh / TENSOR_FILE, checkpoint.tensors)
        write_json_atomic(fresh / STATE_FILE, checkpoint.state.model_dump(mode="json"))
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise cannot_be_written(
            f"{folder}: the checkpoint", error, "it goes on from the last checkpoint"
        ) from None
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None when there is none.

    Raises:
        ContractError: it is damaged.
    """
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():  # killed between the two renames
        os.rename(old, folder)
    if not folder.exists():
        return None
    state = load_json_model(CheckpointState, folder / STATE_FILE)
    return Checkpoint(state, load_tensors(folder / TENSOR_FILE))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state, flattened to ``<parameter number>.<name>``."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, entries in state.items()
        for name, value in entries.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a flattened state back."""
    nested: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        nested.setdefault(int(number), {})[name] = value.clone()  # not shared with whoever saved
    state = optimizer.state_dict()
    optimizer.load_state_dict({"state": nested, "param_groups": state["param_groups"]})
