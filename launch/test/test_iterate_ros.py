"""All stages with rollouts through real processes, real DDS and real bags, on a small scale.

Pins: candidate policies reach the running policy node as checked bundles; what is learnt from are
the recorder's bags, those of a trial too, whose chains have the log-probabilities that the trainer
computes again (the online stage refuses others); the run ends with a deployable bundle; and a
recorded folder then serves the stages of `rl100 train`, offline and online, as a lab would call
them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rl100.iterate_cli import iterate
from rl100_contracts.bundle import load_manifest, verify_bundle
from rl100_contracts.episode import list_episodes
from rl100_contracts.errors import ContractError
from rl100_contracts.task import load_task
from rl100_trainer.data.bags import read_episode
from rl100_trainer.progress import ignore_progress
from rl100_trainer.stage_runner import Stage, StageRequest, run_stage

pytestmark = pytest.mark.integration

SETTINGS = [
    "imitation.steps=60",
    "distill.steps=20",
    "critic.steps=20",
    "offline.iterations=1",
    "offline.rollouts=3",
    "offline.phases=1",
    "offline.steps=3",
    "offline.gate=none",  # so that there is a trial
    "offline.check_episodes=2",
    "offline.imitate=none",
    "online.env_steps=60",
    "online.environments=1",
    "online.decisions=10",
    "run.device=cpu",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iterate") / "run"
    iterate(folder, "push", None, 10, "", SETTINGS, 0, True)
    return folder


def test_the_run_ends_with_a_bundle(run: Path) -> None:
    manifest = verify_bundle(run / "bundle", load_task("push"))
    assert manifest.stage == "online"
    assert manifest.parent == load_manifest(run / "il" / "bundle").policy_version
    steps = json.loads((run / "steps.json").read_text())
    assert steps["iteration_1:rollouts"]["env_steps"] > 0
    assert len(steps["iteration_1:improvement"]["verdicts"]) == 1
    trial = steps["iteration_1:improvement trial"]
    assert trial["wins"] + trial["losses"] + trial["ties"] == 2
    assert steps["online"]["env_steps"] > 0


def test_bags_hold_a_chain_for_each_decision(run: Path) -> None:
    """But those of a trial: what is deployed doesn't explore, so it has no log-probabilities."""
    paths = list_episodes(run / "ros" / "data")
    episodes = [read_episode(path, load_task("push")) for path in paths]
    exploring = [episode for episode in episodes if episode.log_probs is not None]
    assert len(exploring) >= 4
    for episode in exploring:
        assert episode.chains is not None
        assert len(episode.chains) == int(episode.decision.sum())
    trials = json.loads((run / "steps.json").read_text())
    pairs = 2 * sum(1 for name in trials if name.endswith("trial"))
    assert len(episodes) - len(exploring) == 2 * pairs


def stage(name: Stage, run: Path, out: Path, *overrides: str) -> StageRequest:
    return StageRequest(
        name, "push", [run / "ros" / "data"], out, overrides=overrides, previous=run
    )


def test_recorded_rollouts_serve_an_online_update(run: Path, tmp_path: Path) -> None:
    pushed = run / "ros" / "bundles" / "push_0001"
    previous = tmp_path / "previous"
    previous.mkdir()
    (previous / "bundle").symlink_to(pushed, target_is_directory=True)
    request = StageRequest(
        "online", "push", [run / "ros" / "data"], tmp_path / "next", previous=previous
    )
    result, skipped = run_stage(request, ignore_progress)
    assert not skipped
    manifest = verify_bundle(result.bundle, load_task("push"))
    assert manifest.parent == load_manifest(pushed).policy_version
    assert manifest.metrics["recomputed_difference"] < 1e-3
    assert (tmp_path / "next" / "learner.safetensors").is_file()


def test_too_few_decisions_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl100_trainer.stages.recorded.FEWEST_DECISIONS", 10_000)
    previous = tmp_path / "previous"
    previous.mkdir()
    pushed = run / "ros" / "bundles" / "push_0001"
    (previous / "bundle").symlink_to(pushed, target_is_directory=True)
    request = stage("online", run, tmp_path / "next")
    with pytest.raises(ContractError, match=r"decisions, and an update takes 10000 or more"):
        run_stage(dataclasses.replace(request, previous=previous), ignore_progress)


def test_other_denoising_steps_than_recorded_are_told(run: Path, tmp_path: Path) -> None:
    previous = tmp_path / "previous"
    previous.mkdir()
    pushed = run / "ros" / "bundles" / "push_0001"
    (previous / "bundle").symlink_to(pushed, target_is_directory=True)
    request = stage("online", run, tmp_path / "next", "diffusion.steps=3")
    request = dataclasses.replace(request, previous=previous)
    with pytest.raises(ContractError, match=r"diffusion\.steps is 3, but the rollouts"):
        run_stage(request, ignore_progress)


def test_online_learning_wants_rollouts_of_its_own_policy(run: Path, tmp_path: Path) -> None:
    request = stage("online", run, tmp_path / "next")
    with pytest.raises(ContractError, match="no episode was recorded with the policy"):
        run_stage(request, ignore_progress)


def test_data_of_one_outcome_gives_no_offline_policy(run: Path, tmp_path: Path) -> None:
    """Untrained as it is, the policy only fails: the gate is blind on that and says so."""
    request = stage("offline", run, tmp_path / "next", "critic.steps=10", "offline.gate=paired")
    outcomes = {read_episode(p, load_task("push")).outcome for p in list_episodes(request.data[0])}
    if outcomes != {"failure"}:
        pytest.skip("a lucky push: both outcomes are there")
    with pytest.raises(ContractError, match="no improvement passed the gate"):
        run_stage(request, ignore_progress)
    assert not (tmp_path / "next" / "bundle").exists()


def test_mistakes_are_told_in_a_sentence(run: Path, tmp_path: Path) -> None:
    request = StageRequest("offline", "push", [run / "ros" / "data"], tmp_path / "next")
    with pytest.raises(ContractError, match="give its folder with --previous"):
        run_stage(request, ignore_progress)
    request = StageRequest(
        "offline", "push", [run / "ros" / "data"], tmp_path / "next", previous=tmp_path
    )
    with pytest.raises(ContractError, match="must be a finished run"):
        run_stage(request, ignore_progress)
