"""What cannot be learnt from or gone on from is refused in one sentence, and nothing is changed.

Pins: too few episodes for critics, or too short ones; weights of another configuration or task; a
folder that holds a run of another task; data of one outcome, which are warned of and which the gate
refuses, so that the policy stays bit for bit what it was and an offline run ends without a bundle.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_trainer.checkpoint import save_tensors
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.improvement import Improvement, fit_critics, improve
from rl100_trainer.stages.recorded import RecordedStage
from rl100_trainer.stages.runs import VALUE, load_policy, make_policy, open_run
from rl100_trainer.testing import (
    CHUNK,
    REACH_SPEC,
    REACH_TASK,
    SEEN_REACH_SPEC,
    reach_demonstrations,
)

SETTINGS = (
    "model.widths=[16,16]",
    "model.features=8",
    "model.point_widths=[8,16]",
    "diffusion.steps=3",
    "critic.steps=2",
    "offline.phases=1",
    "offline.steps=1",
    "run.device=cpu",
)


@pytest.fixture
def config() -> TrainConfig:
    return load_config(None, SETTINGS)


def sentence(told: pytest.ExceptionInfo[ContractError]) -> str:
    """What is told, which is one line."""
    text = str(told.value)
    assert text and "\n" not in text
    return text


def cut(episode: EpisodeArrays, length: int) -> EpisodeArrays:
    """The first steps of an episode."""
    rows = {
        field.name: getattr(episode, field.name)[:length]
        for field in fields(episode)
        if isinstance(getattr(episode, field.name), np.ndarray)
    }
    return replace(episode, **rows)


def nobody_asks(phase: str, step: int, total: int, loss: float) -> None:
    """No progress is shown, and nothing is stopped."""


# --- critics


def pieces(episode: EpisodeArrays, *lengths: int) -> EpisodeArrays:
    """An episode of which a recording with gaps has pieces of these lengths."""
    segment = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    return replace(cut(episode, len(segment)), segment=segment)


@pytest.mark.parametrize(
    "plan",
    [
        [(9,)],
        [(CHUNK,), (CHUNK,)],
        [(1,), (CHUNK,), (CHUNK,), (1,)],
        [(CHUNK, CHUNK, CHUNK), (1, 1, CHUNK, 1)],  # long enough, but for the gaps
        [(CHUNK + 1,), (CHUNK,)],  # a single state that anything follows
    ],
)
def test_critics_want_pieces_longer_than_a_chunk(
    config: TrainConfig, plan: list[tuple[int, ...]]
) -> None:
    whole = reach_demonstrations(range(len(plan)))
    episodes = [pieces(e, *lengths) for e, lengths in zip(whole, plan, strict=True)]
    policy = make_policy(REACH_SPEC, config)
    with pytest.raises(ContractError) as told:
        fit_critics(policy, config, REACH_TASK, episodes, seed=0, on_step=nobody_asks)
    words = sentence(told)
    assert words.startswith("offline learning needs two episodes or more")
    assert f"longer than one action chunk ({CHUNK} steps)" in words
    assert f"there are {len(plan)} episodes: record more" in words


def test_critics_want_episodes_at_all(config: TrainConfig) -> None:
    policy = make_policy(REACH_SPEC, config)
    with pytest.raises(ContractError, match="there is no episode to train on: record some"):
        fit_critics(policy, config, REACH_TASK, [], seed=0, on_step=nobody_asks)


def test_two_episodes_of_one_step_more_than_a_chunk_are_enough(config: TrainConfig) -> None:
    episodes = [pieces(e, CHUNK + 1) for e in reach_demonstrations(range(2))]
    policy = make_policy(REACH_SPEC, config)
    _, logs = fit_critics(policy, config, REACH_TASK, episodes, seed=0, on_step=nobody_asks)
    assert np.isfinite(logs["critic_loss"])


# --- weights


@pytest.fixture
def bundle(tmp_path: Path, config: TrainConfig) -> Path:
    """Weights of the smallest task's policy."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    save_tensors(folder / WEIGHTS, dict(make_policy(REACH_SPEC, config).state_dict()))
    return folder


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.widths=[32,32]", "size mismatch for denoiser.enter.weight"),
        ("model.widths=[16]", "Unexpected key"),
        ("model.widths=[16,16,16]", "Missing key"),
        ("model.features=16", "size mismatch for encoder.state.0.weight"),
        ("model.horizon=4", "size mismatch for denoiser.enter.weight"),
        ("model.denoiser=unet", "Missing key"),
    ],
)
def test_weights_of_another_configuration_are_refused(
    bundle: Path, override: str, words: str
) -> None:
    other = load_config(None, (*SETTINGS, override))
    with pytest.raises(ContractError) as told:
        load_policy(bundle, other, REACH_SPEC)
    text = sentence(told)
    assert text.startswith(f"{bundle / WEIGHTS}: doesn't fit the networks of this configuration")
    assert words in text


@pytest.mark.parametrize(
    "spec",
    [
        replace(REACH_SPEC, state_dim=5),
        replace(REACH_SPEC, num_points=16),
        replace(REACH_SPEC, action_low=(-0.2,) * 3, action_high=(0.2,) * 3),
        replace(REACH_SPEC, n_obs_steps=2),
        replace(REACH_SPEC, n_action_steps=4),
        SEEN_REACH_SPEC,
    ],
    ids=["state", "cloud", "actions", "frames", "chunk", "image"],
)
def test_weights_of_another_task_are_refused(
    bundle: Path, config: TrainConfig, spec: PolicySpec
) -> None:
    with pytest.raises(ContractError, match="doesn't fit the networks") as told:
        load_policy(bundle, config, spec)
    assert str(bundle / WEIGHTS) in sentence(told)


def test_weights_that_fit_are_taken_bit_for_bit(bundle: Path, config: TrainConfig) -> None:
    seed = config.run.model_copy(update={"seed": 7})  # initial weights of another run
    other = config.model_copy(update={"run": seed})
    kept, fresh = make_policy(REACH_SPEC, config), make_policy(REACH_SPEC, other)
    loaded = load_policy(bundle, other, REACH_SPEC).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in kept.state_dict().items())
    assert not all(torch.equal(loaded[k], v) for k, v in fresh.state_dict().items())


def test_weights_that_are_cut_off_or_missing_are_refused(bundle: Path, config: TrainConfig) -> None:
    path = bundle / WEIGHTS
    path.write_bytes(path.read_bytes()[:200])
    for _ in range(2):
        with pytest.raises(ContractError, match="cannot be read") as told:
            load_policy(bundle, config, REACH_SPEC)
        assert str(path) in sentence(told)
        path.unlink(missing_ok=True)


# --- a run's folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "reach_other"},
        {"max_steps": 17},
        {"success_reward": 2.0},
        {"spec": replace(REACH_SPEC, action_high=(0.3, 0.3))},
    ],
    ids=["name", "max_steps", "success_reward", "action_high"],
)
def test_a_folder_with_a_run_of_another_task_is_refused(
    tmp_path: Path, config: TrainConfig, changes: Mapping[str, Any]
) -> None:
    run = tmp_path / "run"
    assert open_run(run, config, REACH_TASK, "data") is None
    before = content(run)
    assert set(before) == {"config.yaml", "task.yaml"}
    other = replace(REACH_TASK, **changes)
    with pytest.raises(ContractError) as told:
        open_run(run, config, other, "data")
    assert sentence(told) == (
        f"{run / 'task.yaml'}: another task than the one given now: give another folder"
    )
    assert content(run) == before
    assert open_run(run, config, REACH_TASK, "data") is None  # its own one goes on


def test_a_changed_contract_is_another_task(
    tmp_path: Path, config: TrainConfig, task: Task
) -> None:
    """Also where no shape differs: what was learnt under other rules isn't mixed in."""
    open_run(tmp_path, config, LearningTask.of(task), "data")
    values = task.model_dump()
    values["reward"]["step_penalty"] = 0.01
    stricter = LearningTask.of(Task.model_validate(values))
    with pytest.raises(ContractError, match=r"task\.yaml: another task"):
        open_run(tmp_path, config, stricter, "data")
    assert open_run(tmp_path, config, LearningTask.of(task), "data") is None


# --- data of one outcome


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's estimates from one draw: what it makes of them isn't pinned here."""
    monkeypatch.setattr("rl100_trainer.stages.offline.DRAWS", 1)


def improved(
    config: TrainConfig, outcomes: tuple[str, ...], folder: Path
) -> tuple[Improvement, bool]:
    """What an improvement on episodes of these outcomes came to, and whether the policy moved."""
    episodes = [
        replace(episode, outcome=outcome)
        for episode, outcome in zip(reach_demonstrations(range(2)), outcomes, strict=True)
    ]
    policy = make_policy(REACH_SPEC, config)
    critics, _ = fit_critics(policy, config, REACH_TASK, episodes, seed=0, on_step=nobody_asks)
    before = copy.deepcopy(policy.state_dict())
    done = improve(
        policy, critics, config, REACH_TASK, episodes, folder, seed=0, on_step=nobody_asks
    )
    after = policy.state_dict()
    return done, any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    ("outcomes", "held"),
    [
        (("success", "success"), "only episodes of outcome success"),
        (("failure", "failure"), "only episodes of outcome failure"),
        (("success", "unknown"), "only episodes of outcome success"),
        (("unknown", "unknown"), "no labelled episode"),
    ],
)
def test_data_of_one_outcome_are_warned_of_and_refused(
    config: TrainConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    outcomes: tuple[str, ...],
    held: str,
) -> None:
    with caplog.at_level(logging.WARNING, "rl100_trainer.stages.improvement"):
        done, moved = improved(config, outcomes, tmp_path)
    (warning,) = caplog.messages
    assert "\n" not in warning
    assert "the data hold episodes of one outcome only" in warning
    assert "the gate will refuse every candidate; record and keep both" in warning
    (verdict,) = done.verdicts
    assert done.accepted == 0 and not verdict["accepted"]
    assert verdict["reason"].startswith(f"refused: the data held {held}")
    assert not moved


@pytest.mark.usefixtures("cheap")
def test_data_of_both_outcomes_are_not_warned_of(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a gate, so that what could be refused is seen to move the policy."""
    open_gate = config.offline.model_copy(update={"gate": "none"})
    ungated = config.model_copy(update={"offline": open_gate})
    done, moved = improved(ungated, ("success", "failure"), tmp_path)
    assert not caplog.messages
    assert done.accepted == 1 and moved


@pytest.mark.usefixtures("cheap")
def test_an_offline_run_that_the_gate_refuses_leaves_no_policy(
    config: TrainConfig,
    task: Task,
    episodes: list[EpisodeArrays],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On recorded episodes, as `rl100 train --stage offline` calls it."""
    previous, run = tmp_path / "previous", tmp_path / "run"
    (previous / "bundle").mkdir(parents=True)
    policy = make_policy(PolicySpec.of_task(task), config)
    save_tensors(previous / "bundle" / WEIGHTS, dict(policy.state_dict()))
    # Weights alone stand for a whole bundle, whose graphs take longer than all of this.
    manifest = SimpleNamespace(policy_version="push_17")
    monkeypatch.setattr("rl100_trainer.stages.recorded.verify_bundle", lambda *_: manifest)
    before = content(previous)
    with pytest.raises(ContractError) as told:
        RecordedStage(config, task, episodes, previous, run).offline()
    assert sentence(told).startswith(
        "no improvement passed the gate, so the policy push_17 stays; the last verdict: refused: "
        "the data held only episodes of outcome success"
    )
    assert not (run / "bundle").exists() and not (run / VALUE).exists()
    assert content(previous) == before
