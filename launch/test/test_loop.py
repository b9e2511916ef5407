"""The whole loop through real processes, real DDS and real bags, on a small scale.

Pins: demonstrations become complete bags, bags become a bundle whose export matches the training
code, the pushed policy drives the robot; recorded rollouts give bit for bit what the policy saw;
the ROS graph in lockstep and the in-process environment give the same episodes; the report has its
pictures. Also: a chain recorded by the policy node has one log-probability for each step.
"""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rich.console import Console

from rl100.demo.driver import EVALUATION_SEEDS, DemoPlan, DemoResult, run_demo
from rl100.demo.report import write_report
from rl100.evaluate import evaluate_direct
from rl100.session import Session
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.bundle import verify_bundle
from rl100_contracts.episode import EpisodeReader, list_episodes, load_episode_info

pytestmark = pytest.mark.integration

PLAN = DemoPlan(
    demonstrations=5,
    episodes=3,
    recorded=1,
    overrides=("imitation.steps=30", "distill.steps=20", "run.checkpoint_every=30"),
)
SEED = 3


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    folder = tmp_path_factory.mktemp("demo")
    return run_demo(folder, PLAN, SEED, Console(file=io.StringIO()))


def test_demonstrations_are_complete_bags(result: DemoResult) -> None:
    assert result.demonstrations is not None
    demonstrations = result.demonstrations.results
    assert len(demonstrations) == PLAN.demonstrations
    for episode in demonstrations:
        info = load_episode_info(Path(episode.path))
        assert info.complete, info.problems
        assert (info.outcome.value == "success") == episode.success
        assert info.source == "scripted" and info.labeller == "scripted"
        assert info.seed == episode.seed and info.steps in (episode.steps, episode.steps + 1)


def test_bags_open_with_the_mcap_library(result: DemoResult) -> None:
    assert result.demonstrations is not None
    folder = Path(result.demonstrations.results[0].path)
    info = load_episode_info(folder)
    counts: dict[str, int] = {}
    with (folder / info.bag_file).open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, _, message in reader.iter_decoded_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
            if channel.topic == "/rl100/executed_action":
                assert len(message.action) == 2
    assert counts == {t: a.received for t, a in info.audit.items() if a.received}


def test_the_export_matches_the_training_code(result: DemoResult) -> None:
    manifest = verify_bundle(result.bundle, result.task)
    assert manifest.export_parity <= 1e-4
    assert {e.policy_version for e in result.evaluations} == {manifest.policy_version}


def test_bags_give_the_tensors_that_the_policy_saw(result: DemoResult) -> None:
    assert result.parity_compared >= 2
    assert result.parity_different == 0


@pytest.mark.parametrize("sampler", ["k_step", "one_step"])
def test_ros_and_direct_simulation_give_the_same_episodes(result: DemoResult, sampler: str) -> None:
    through_ros = next(e for e in result.evaluations if e.name == sampler)
    first = EVALUATION_SEEDS + SEED * 10_000
    seeds = range(first, first + PLAN.episodes)
    direct = evaluate_direct(result.bundle, result.task, sampler, seeds, noise_seed=SEED)
    expected = [(r.seed, r.success, r.steps) for r in direct.results]
    assert [(r.seed, r.success, r.steps) for r in through_ros.results] == expected


def test_report_and_summary(result: DemoResult) -> None:
    page = write_report(result).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 3
    assert "one-step policy" in page
    summary = json.loads((result.folder / "summary.json").read_text())
    assert [e["name"] for e in summary["evaluations"]] == ["demonstrations", "k_step", "one_step"]


def test_rollouts_record_the_denoising_chain(result: DemoResult, tmp_path: Path) -> None:
    arguments = {
        "sim": "true",
        "lockstep": "true",
        "bundle": str(result.bundle),
        "data": str(tmp_path / "rollouts"),
    }
    with ExitStack() as stack:
        nodes = describe("rollout", arguments)
        system = stack.enter_context(RunningSystem(nodes, log_dir=tmp_path / "logs"))
        session = stack.enter_context(Session(result.task, system.check))
        episode = Path(session.run_episode(7, record=True).path)
    assert episode in list_episodes(tmp_path / "rollouts")
    manifest = verify_bundle(result.bundle, result.task)
    with EpisodeReader(episode, result.task) as reader:
        streams = list(reader.messages(["policy_step", "action_chunk"]))
    chunks = {m.sequence: m for name, m in streams if name == "action_chunk"}
    steps = [m for name, m in streams if name == "policy_step"]
    assert len(steps) == len(chunks) > 0
    for step in steps:
        k, h, d = step.denoising_steps, step.horizon, step.action_dim
        assert len(step.log_probs) == k == manifest.denoising_steps
        assert len(step.chain) == (k + 1) * h * d
        assert list(step.timesteps) == manifest.timesteps
        assert chunks[step.sequence].policy_version == step.policy_version
