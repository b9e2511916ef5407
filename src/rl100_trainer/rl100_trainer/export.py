"""Export of a policy as a bundle, and the proof that the exported graphs do the same."""

from __future__ import annotations

import datetime
import hashlib
import logging
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl100_contracts.bundle import (
    CONFIG,
    DENOISER,
    POLICY,
    TASK,
    WEIGHTS,
    Manifest,
    publish_bundle,
    sha256_file,
    write_manifest,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_trainer.checkpoint import save_tensors
from rl100_trainer.config import TrainConfig
from rl100_trainer.networks.policy import DiffusionPolicy

OPSET = 17
PARITY_SAMPLES = 256
PARITY_BATCH = 32
PARITY_LIMIT = 1e-4
FloatArray = NDArray[np.float32]


class OneStepGraph(nn.Module):
    """state, cloud, noise → action of the one-step student, in task units."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor, cloud: Tensor, noise: Tensor) -> Tensor:
        return self.policy.act(state, cloud, noise)


class ChainGraph(nn.Module):
    """Observation, noise, step_noise, noise_scale → action, chain, log_prob of the K steps."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, state: Tensor, cloud: Tensor, noise: Tensor, step_noise: Tensor, noise_scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        condition = self.policy.condition(state, cloud)
        chain = self.policy.rollout(condition, noise, step_noise, noise_scale)
        return self.policy.executed(chain.samples[-1]), chain.samples, chain.log_probs


def _export(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: tuple[list[str], list[str]],
    batch_axis: dict[str, int],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own age and tracing constants
        torch.onnx.export(
            graph,
            inputs,
            str(path),
            input_names=names[0],
            output_names=names[1],
            dynamic_axes={name: {axis: "batch"} for name, axis in batch_axis.items()},
            opset_version=OPSET,
            dynamo=False,
        )


def example_inputs(policy: DiffusionPolicy, batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of both graphs: zero observations, standard normal noise, noise_scale 1."""
    spec, generator = policy.spec, torch.Generator().manual_seed(seed)
    shape = (batch, policy.horizon, spec.action_dim)
    return {
        "state": torch.zeros(batch, spec.n_obs_steps, spec.state_dim),
        "cloud": torch.zeros(batch, spec.n_obs_steps, spec.num_points, 3),
        "noise": torch.randn(shape, generator=generator),
        "step_noise": torch.randn((policy.schedule.steps, *shape), generator=generator),
        "noise_scale": torch.ones(()),
    }


def export_graphs(policy: DiffusionPolicy, folder: Path) -> None:
    """Write policy.onnx and denoiser.onnx; the policy must be on the CPU."""
    policy.eval()
    inputs = example_inputs(policy, 2)
    with torch.no_grad():
        _export(
            OneStepGraph(policy),
            (inputs["state"], inputs["cloud"], inputs["noise"]),
            folder / POLICY,
            (["state", "cloud", "noise"], ["action"]),
            {"state": 0, "cloud": 0, "noise": 0, "action": 0},
        )
        _export(
            ChainGraph(policy),
            tuple(inputs.values()),
            folder / DENOISER,
            (list(inputs), ["action", "chain", "log_prob"]),
            {"state": 0, "cloud": 0, "noise": 0, "step_noise": 1, "action": 0, "chain": 1,
             "log_prob": 1},
        )  # fmt: skip


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A single-threaded CPU session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor]) -> list[FloatArray]:
    names = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v.numpy() for k, v in inputs.items() if k in names}))


@torch.no_grad()
def measure_parity(
    policy: DiffusionPolicy, folder: Path, states: Tensor, clouds: Tensor, seed: int = 0
) -> float:
    """Largest difference of exported and trained actions, as a fraction of the action range.

    At least ``PARITY_SAMPLES`` observations, drawn at random from real ones, each with its own
    noise, one half one by one and the other in batches, through both graphs; the K-step graph
    deterministic and stochastic.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = np.array(policy.spec.action_low), np.array(policy.spec.action_high)
    one_step, chain = open_session(folder / POLICY), open_session(folder / DENOISER)
    worst = 0.0
    done = 0
    while done < PARITY_SAMPLES:
        batch = 1 if done < PARITY_SAMPLES // 2 else PARITY_BATCH
        index = torch.randint(len(states), (batch,), generator=generator)
        inputs = example_inputs(policy, batch, seed + 1 + done)
        inputs.update(state=states[index], cloud=clouds[index])
        inputs["noise_scale"] = torch.tensor(float(done % 2))
        expected = policy.act(inputs["state"], inputs["cloud"], inputs["noise"])
        wanted = ChainGraph(policy)(**inputs)[0]
        pairs = [
            (expected, _run(one_step, inputs)[0]),
            (wanted, _run(chain, inputs)[0]),
        ]
        for trained, exported in pairs:
            gap = np.abs(trained.numpy() - exported) / (high - low)
            # NaN must not slip through a comparison.
            worst = max(worst, float(gap.max())) if np.isfinite(gap).all() else float("inf")
        done += batch
    return worst


def export_bundle(
    policy: DiffusionPolicy,
    config: TrainConfig,
    task: Task,
    final: Path,
    *,
    stage: str,
    parent: str,
    observations: tuple[Tensor, Tensor],
    metrics: Mapping[str, float],
) -> Manifest:
    """Write the bundle ``final``, unless its graphs differ from the trained policy.

    Args:
        policy: on the CPU.
        observations: real states (M, n_o, d_s) and clouds (M, n_o, N, 3) for the parity check.

    Raises:
        ContractError: the export isn't faithful, or ``final`` exists.
    """
    staging = final.with_name(f".{final.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    export_graphs(policy, staging)
    parity = measure_parity(policy, staging, *observations, seed=config.run.seed)
    if parity > PARITY_LIMIT:
        shutil.rmtree(staging)
        raise ContractError(
            f"{final}: not exported, because the ONNX policy differs from the trained one by "
            f"{parity:.1e} of the action range (limit {PARITY_LIMIT:.0e})"
        )
    save_tensors(staging / WEIGHTS, dict(policy.state_dict()))
    (staging / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    (staging / TASK).write_text(task.to_yaml(), encoding="utf-8")
    identity = sha256_file(staging / WEIGHTS) + task.hash + config.to_yaml()
    short = hashlib.sha256(identity.encode()).hexdigest()[:10]
    spec = policy.spec
    manifest = Manifest(
        policy_version=f"{task.name}-{stage}-{short}",
        task=task.name,
        task_hash=task.hash,
        stage=stage,
        parent=parent,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        n_obs_steps=spec.n_obs_steps,
        state_dim=spec.state_dim,
        num_points=spec.num_points,
        horizon=policy.horizon,
        n_action_steps=spec.n_action_steps,
        action_dim=spec.action_dim,
        denoising_steps=policy.schedule.steps,
        timesteps=policy.schedule.timesteps.tolist(),
        export_parity=parity,
        metrics=dict(metrics),
        files={},
    )
    manifest = write_manifest(staging, manifest)
    publish_bundle(staging, final)
    return manifest
