"""Checkpoints survive what may happen to them.

Pins: what is saved is what is loaded, optimisers too; a full disc is told in one sentence and
leaves the last checkpoint whole; a crash between the two renames loses nothing; a damaged one is
refused.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rl100_contracts.errors import ContractError
from rl100_trainer import checkpoint as module
from rl100_trainer.checkpoint import (
    Checkpoint,
    CheckpointState,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    with_prefix,
)


def made(step: int) -> Checkpoint:
    state = CheckpointState(stage="il", phase="denoiser", step=step, data="x")
    return Checkpoint(state, with_prefix("policy", {"weight": torch.full((3,), float(step))}))


def weight(checkpoint: Checkpoint | None) -> Tensor:
    assert checkpoint is not None
    return checkpoint.part("policy")["weight"]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", made(1))
    save_checkpoint(tmp_path / "checkpoint", made(2))
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert torch.equal(weight(loaded), torch.full((3,), 2.0))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    assert load_checkpoint(tmp_path / "none") is None


def test_optimisers_go_on_as_they_were() -> None:
    first, second = (torch.nn.Linear(2, 2) for _ in range(2))
    second.load_state_dict(first.state_dict())
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (first, second)]
    for _ in range(3):
        first(torch.ones(2)).sum().backward()
        optimizers[0].step()
    second.load_state_dict(first.state_dict())
    load_optimizer(optimizers[1], optimizer_tensors(optimizers[0]))
    for network, optimizer in zip((first, second), optimizers, strict=True):
        optimizer.zero_grad()
        network(torch.ones(2)).square().sum().backward()
        optimizer.step()
    assert torch.equal(first.weight, second.weight)


def test_a_full_disc_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "checkpoint", made(1))

    def full(path: Path, tensors: dict[str, Tensor]) -> None:
        path.write_bytes(b"the first bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_tensors", full)
        with pytest.raises(ContractError, match=r"cannot be written \(No space left") as told:
            save_checkpoint(tmp_path / "checkpoint", made(2))
    assert "\n" not in str(told.value)
    assert torch.equal(weight(load_checkpoint(tmp_path / "checkpoint")), torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_crash_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", made(1))
    os.rename(tmp_path / "checkpoint", tmp_path / ".checkpoint.old")
    assert torch.equal(weight(load_checkpoint(tmp_path / "checkpoint")), torch.ones(3))


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", made(1))
    file = tmp_path / "checkpoint" / module.TENSOR_FILE
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ContractError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint")
