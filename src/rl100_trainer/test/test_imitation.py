"""The stage: it learns, is deterministic, resumes bit for bit, stops at a word, writes its run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import pytest
import torch

from rl100_contracts.bundle import MANIFEST, SELFTEST, verify_bundle
from rl100_contracts.errors import ContractError, Interrupted
from rl100_contracts.task import Task
from rl100_trainer import export
from rl100_trainer.checkpoint import load_tensors
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.distill import consistency_loss, student_error
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import Progress
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.online import RECOMPUTED_LIMIT
from rl100_trainer.stages.runs import make_policy


def test_run_writes_everything_and_is_deterministic(
    task: Task, tiny: TrainConfig, episodes: list[EpisodeArrays], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    first = train_imitation(tiny, task, episodes, tmp_path / "a", progress=seen.append)
    second = train_imitation(tiny, task, episodes, tmp_path / "b")
    manifest = verify_bundle(first.bundle, task)
    assert SELFTEST in manifest.files
    assert manifest.export_parity <= 1e-4
    assert manifest.stage == "il" and manifest.timesteps == [81, 61, 41, 21, 1]
    assert first.policy_version == second.policy_version
    weights = [(run.bundle / "weights.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]
    assert {p.phase for p in seen} == {"denoiser", "student", "export"}
    assert (tmp_path / "a" / "config.yaml").read_text() == tiny.to_yaml()
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["phase"] for line in lines} == {"denoiser", "student"}
    assert {"student_error", "held_out_action_error"} <= set(manifest.metrics)
    other = tiny.model_copy(update={"run": tiny.run.model_copy(update={"seed": 1})})
    third = train_imitation(other, task, episodes, tmp_path / "c")
    assert (third.bundle / "weights.safetensors").read_bytes() != weights[0]


@pytest.mark.parametrize("stop_at", [7, 30, 41])
def test_resumed_run_equals_an_uninterrupted_one(
    task: Task, tiny: TrainConfig, episodes: list[EpisodeArrays], tmp_path: Path, stop_at: int
) -> None:
    whole = train_imitation(tiny, task, episodes, tmp_path / "whole")
    calls = iter(range(1000))
    with pytest.raises(Interrupted, match="the same command goes on"):
        train_imitation(tiny, task, episodes, tmp_path / "cut", stop=lambda: next(calls) >= stop_at)
    resumed = train_imitation(tiny, task, episodes, tmp_path / "cut")
    a, b = (load_tensors(run.bundle / "weights.safetensors") for run in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0].count("\n") == logs[1].count("\n")


def test_run_directories_are_not_mixed_up(
    task: Task, tiny: TrainConfig, episodes: list[EpisodeArrays], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train_imitation(tiny, task, episodes, tmp_path, stop=lambda: True)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST).touch()
    with pytest.raises(ContractError, match="this is a bundle"):
        train_imitation(tiny, task, episodes, tmp_path / "bundle")
    (tmp_path / "bundle" / MANIFEST).unlink()
    (tmp_path / "bundle").rmdir()
    with pytest.raises(ContractError, match="another configuration"):
        other = tiny.model_copy(update={"run": tiny.run.model_copy(update={"seed": 1})})
        train_imitation(other, task, episodes, tmp_path)
    with pytest.raises(ContractError, match="other episodes"):
        train_imitation(tiny, task, episodes[:-1], tmp_path)


def test_policy_learns_a_simple_task(task: Task, episodes: list[EpisodeArrays]) -> None:
    """Constant actions: the K-step policy must find them, whatever it sees."""
    from rl100_trainer.data.dataset import make_windows
    from rl100_trainer.stages.loop import Phase
    from rl100_trainer.stages.losses import imitation_loss

    config = load_config(None, ["model.widths=[32,32]", "model.features=8"])
    spec = PolicySpec.of_task(task)
    policy = make_policy(spec, config)
    windows = make_windows(episodes, spec, policy.horizon)
    windows.actions[:] = torch.tensor([0.015, -0.009])
    policy.normaliser.fit(spec, windows.states, windows.clouds, windows.actions[:, 0])
    trained = dict(policy.named_parameters())
    phase = Phase("denoiser", policy, trained, steps=150, rate=3e-3, ema_decay=0.9, seed=0)
    while phase.step < phase.steps:
        loss, _ = imitation_loss(policy, windows, config.imitation, phase.generator)
        phase._update(loss)
    phase.ema.copy_to_parameters()
    with torch.no_grad():
        condition = policy.condition(windows.states, windows.clouds)
        noise = torch.randn(len(windows), policy.horizon, 2)
        actions = policy.executed(policy.rollout(condition, noise).samples[-1])
    error = (actions - torch.tensor([0.015, -0.009])).abs().mean()
    assert float(error) < 0.002


def test_student_converges_to_its_teacher(task: Task) -> None:
    """Distillation alone brings the student close to the K-step chains of a fixed teacher."""
    config = load_config(
        None, ["model.widths=[64,64]", "model.features=8", "model.prediction=sample"]
    )
    policy = make_policy(PolicySpec.of_task(task), config)
    torch.manual_seed(0)
    condition = torch.randn(64, policy.condition_dim)
    generator = torch.Generator().manual_seed(0)
    before = student_error(policy, condition, generator)
    optimizer = torch.optim.Adam(policy.student.parameters(), lr=2e-3)
    for _ in range(300):
        loss = consistency_loss(policy, condition, 4, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = student_error(policy, condition, generator)
    assert after < 0.25 * before
    assert all(p.grad is None for p in policy.denoiser.parameters())


@pytest.fixture(scope="module", params=["skipnet", "unet"])
def exported(
    request: pytest.FixtureRequest, task: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DiffusionPolicy, Path]:
    """A policy with random weights, and the folder of its graphs."""
    widths = "[16,16]" if request.param == "skipnet" else "[16,32]"
    overrides = [f"model.denoiser={request.param}", f"model.widths={widths}"]
    config = load_config(None, [*overrides, "model.features=8", "diffusion.steps=5"])
    policy = make_policy(PolicySpec.of_task(task), config)
    folder = tmp_path_factory.mktemp(request.param)
    export.export_graphs(policy, folder)
    return policy, folder


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_exported_chain_and_log_probs_equal_torch(
    exported: tuple[DiffusionPolicy, Path], batch: int
) -> None:
    policy, folder = exported
    torch.manual_seed(batch)
    inputs = export.example_inputs(policy, batch)
    inputs["state"], inputs["cloud"] = (
        torch.randn_like(inputs["state"]),
        torch.randn_like(inputs["cloud"]),
    )
    session = onnxruntime.InferenceSession(folder / "denoiser.onnx")
    action, chain, log_prob = session.run(None, {k: v.numpy() for k, v in inputs.items()})
    assert action.shape == (batch, 4, 2)
    with torch.no_grad():
        condition = policy.condition(inputs["state"], inputs["cloud"])
        expected = policy.rollout(condition, inputs["noise"], inputs["step_noise"])
        recomputed = policy.chain_log_probs(condition, torch.from_numpy(chain))
    np.testing.assert_allclose(chain, expected.samples, atol=1e-4)
    np.testing.assert_allclose(log_prob, expected.log_probs, atol=1e-2)
    np.testing.assert_allclose(log_prob, recomputed, atol=RECOMPUTED_LIMIT)  # or it is refused


def test_noise_scale_zero_is_deterministic(exported: tuple[DiffusionPolicy, Path]) -> None:
    policy, folder = exported
    session = onnxruntime.InferenceSession(folder / "denoiser.onnx")
    actions = []
    for seed in (0, 1):
        inputs = export.example_inputs(policy, 1, seed)
        inputs["noise"] = torch.zeros_like(inputs["noise"])
        inputs["noise_scale"] = torch.zeros(())
        actions.append(session.run(["action"], {k: v.numpy() for k, v in inputs.items()})[0])
    np.testing.assert_array_equal(*actions)


def test_exported_policy_names_its_frames_and_their_codes(
    exported: tuple[DiffusionPolicy, Path],
) -> None:
    """Cut at these names, the part before encodes one frame, and the part after decides."""
    policy, folder = exported
    torch.manual_seed(0)
    inputs = export.example_inputs(policy, 3)
    for name in ("state", "cloud"):
        inputs[name] = torch.randn_like(inputs[name])
    whole = onnx.load(folder / "policy.onnx")
    assert [known.name for known in whole.graph.output] == ["action"]
    parts = onnx.utils.Extractor(whole)
    encoder = parts.extract_model(["frame_state", "frame_cloud"], ["frame_code"])
    head = parts.extract_model(["frame_code", "noise"], ["action"])
    encoder, head = (
        onnxruntime.InferenceSession(part.SerializeToString()) for part in (encoder, head)
    )
    codes = [
        encoder.run(None, {f"frame_{n}": inputs[n][row, [i]].numpy() for n in ("state", "cloud")})
        for row in range(3)
        for i in range(policy.spec.n_obs_steps)
    ]
    code = np.concatenate([found[0] for found in codes])
    with torch.no_grad():
        expected = policy.act(inputs["state"], inputs["cloud"], inputs["noise"])
        mean = policy.encode(inputs["state"], inputs["cloud"]).mean
    np.testing.assert_allclose(code, mean.flatten(0, 1), atol=1e-4)
    (action,) = head.run(None, {"frame_code": code, "noise": inputs["noise"].numpy()})
    np.testing.assert_allclose(action, expected, atol=1e-5)


def test_graphs_that_mix_up_the_frames_are_not_faithful(
    task: Task, tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are judged by the policy itself, not by the code that they were made with."""
    policy = make_policy(PolicySpec.of_task(task), tiny)
    spec, steps = policy.spec, task.control.n_obs_steps
    seen = (
        torch.randn(8, steps, spec.state_dim),
        torch.randn(8, steps, spec.num_points, 3),
        torch.zeros(8, steps, 0),
    )
    export.export_graphs(policy, tmp_path)
    assert export.measure_parity(policy, tmp_path, seen) < export.PARITY_LIMIT
    real = export._Graph._condition
    monkeypatch.setattr(export._Graph, "_condition", lambda graph, code: real(graph, code.flip(0)))
    export.export_graphs(policy, tmp_path)
    assert export.measure_parity(policy, tmp_path, seen) > export.PARITY_LIMIT


def test_unfaithful_export_is_refused(
    task: Task,
    tiny: TrainConfig,
    episodes: list[EpisodeArrays],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def export_other_weights(policy: DiffusionPolicy, folder: Path) -> None:
        with torch.no_grad():
            policy.student.leave.bias += 0.01  # type: ignore[union-attr,operator]
            real(policy, folder)
            policy.student.leave.bias -= 0.01  # type: ignore[union-attr,operator]

    real = export.export_graphs
    monkeypatch.setattr(export, "export_graphs", export_other_weights)
    with pytest.raises(ContractError, match="not exported, because the ONNX policy differs"):
        train_imitation(tiny, task, episodes, tmp_path)
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".bundle*"))


def test_no_pickle_is_used() -> None:
    sources = Path(export.__file__).parent.rglob("*.py")
    text = "\n".join(path.read_text() for path in sources)
    assert "torch.save(" not in text and "torch.load(" not in text and "import pickle" not in text
