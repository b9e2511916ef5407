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
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl100_contracts.bundle import (
    CONFIG,
    DENOISER,
    FRAME,
    FRAME_CODE,
    POLICY,
    SELFTEST,
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
from rl100_trainer.networks.gathered import with_gathered_convolutions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.spec import PolicySpec

OPSET = 17
PARITY_SAMPLES = 256
PARITY_BATCH = 32
PARITY_LIMIT = 1e-4
SELFTEST_SAMPLES = 4
FloatArray = NDArray[np.float32]
Observations = tuple[Tensor, Tensor, Tensor]  # states, clouds, images


def observed_names(spec: PolicySpec) -> list[str]:
    """Names of the graphs' inputs that are observed."""
    seen = {"state": True, "cloud": spec.num_points > 0, "image": spec.image_shape is not None}
    return [name for name, there in seen.items() if there]


class _Graph(nn.Module):
    """A policy's graph, whose first inputs are what the policy observes."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy
        self._names = observed_names(policy.spec)

    def _frames(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What is observed, frame by frame, (B · n_o, …)."""
        seen = zip(self._names, inputs[: len(self._names)], strict=True)
        return {name: tensor.flatten(0, 1) for name, tensor in seen}

    def _code(self, frames: dict[str, Tensor]) -> Tensor:
        """Code of each frame (B · n_o, w)."""
        # What is not observed is no input of the graph either.
        one = {name: tensor.unsqueeze(1) for name, tensor in frames.items()}
        state = one["state"]
        cloud = one.get("cloud", state.new_zeros(*state.shape[:2], 0, 3))
        return self.policy.encode(state, cloud, one.get("image")).mean.flatten(1)

    def _condition(self, code: Tensor) -> Tensor:
        # The number of codes alone decides the batch: the graph can be cut here.
        return code.reshape(-1, self.policy.condition_dim)

    def _others(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The inputs that are not observed."""
        return inputs[len(self._names) :]


class OneStepGraph(_Graph):
    """Observation, noise → action of the one-step student, in task units; and what is ``inner``."""

    def inner(self) -> list[str]:
        """Names of the outputs after the action, which the contract has inside the graph."""
        return [FRAME_CODE, *(FRAME + name for name in self._names)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        frames = self._frames(inputs)
        code = self._code(frames)
        (noise,) = self._others(inputs)
        action = self.policy.executed(self.policy.student_clean(noise, 0, self._condition(code)))
        return action, code, *frames.values()


class ChainGraph(_Graph):
    """Observation, noise, step_noise, noise_scale → action, chain, log_prob of the K steps."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        condition = self._condition(self._code(self._frames(inputs)))
        noise, step_noise, noise_scale = self._others(inputs)
        chain = self.policy.rollout(condition, noise, step_noise, noise_scale)
        return self.policy.executed(chain.samples[-1]), chain.samples, chain.log_probs


def _export(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: tuple[list[str], list[str]],
    axes: dict[str, dict[int, str]],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own age and tracing constants
        torch.onnx.export(
            graph,
            inputs,
            str(path),
            input_names=names[0],
            output_names=names[1],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _keep_inside(path: Path, names: list[str]) -> None:
    """Turn outputs of an exported graph into named tensors inside it."""
    model = onnx.load(path)
    outputs = {known.name: known for known in model.graph.output}
    model.graph.value_info.extend(outputs.pop(name) for name in names)
    del model.graph.output[:]
    model.graph.output.extend(outputs.values())
    onnx.save(model, path)


def example_inputs(policy: DiffusionPolicy, batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of both graphs: zero observations, standard normal noise, noise_scale 1."""
    spec, generator = policy.spec, torch.Generator().manual_seed(seed)
    shape = (batch, policy.horizon, spec.action_dim)
    return {
        **no_observations(spec, batch),
        "noise": torch.randn(shape, generator=generator),
        "step_noise": torch.randn((policy.schedule.steps, *shape), generator=generator),
        "noise_scale": torch.ones(()),
    }


def no_observations(spec: PolicySpec, batch: int) -> dict[str, Tensor]:
    """Observations of zeros by the names of the graphs' inputs."""
    kinds = {"image": torch.uint8}
    return {
        name: torch.zeros((batch, *spec.observation_shapes[f"{name}s"]), dtype=kinds.get(name))
        for name in observed_names(spec)
    }


def export_graphs(policy: DiffusionPolicy, folder: Path) -> None:
    """Write policy.onnx and denoiser.onnx; the policy must be on the CPU."""
    policy.eval()
    policy = with_gathered_convolutions(policy)
    inputs = example_inputs(policy, 2)
    names = [*observed_names(policy.spec), "noise"]
    batch, behind_steps, frames = {0: "batch"}, {1: "batch"}, {0: "frames"}
    with torch.no_grad():
        one_step = OneStepGraph(policy)
        inner = one_step.inner()
        _export(
            one_step,
            tuple(inputs[name] for name in names),
            folder / POLICY,
            (names, ["action", *inner]),
            {**dict.fromkeys([*names, "action"], batch), **dict.fromkeys(inner, frames)},
        )
        _keep_inside(folder / POLICY, inner)
        _export(
            ChainGraph(policy),
            tuple(inputs.values()),
            folder / DENOISER,
            (list(inputs), ["action", "chain", "log_prob"]),
            {
                **dict.fromkeys([*names, "action"], batch),
                **dict.fromkeys(["step_noise", "chain", "log_prob"], behind_steps),
            },
        )


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A single-threaded CPU session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor]) -> list[FloatArray]:
    names = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v.numpy() for k, v in inputs.items() if k in names}))


def _observed(
    policy: DiffusionPolicy, observations: Observations, rows: Tensor
) -> dict[str, Tensor]:
    """Some of the observations, by the names of the graphs' inputs."""
    seen = dict(zip(("state", "cloud", "image"), observations, strict=True))
    return {name: seen[name][rows] for name in observed_names(policy.spec)}


def _trained(policy: DiffusionPolicy, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the trained policy itself does for the inputs of the graphs: in one step, and in K.

    Not by the code of the graphs, which it is to judge.
    """
    state = inputs["state"]
    cloud = inputs.get("cloud", state.new_zeros(*state.shape[:2], 0, 3))
    condition = policy.condition(state, cloud, inputs.get("image"))
    one_step = policy.student_clean(inputs["noise"], 0, condition)
    noises = (inputs[name] for name in ("noise", "step_noise", "noise_scale"))
    chain = policy.rollout(condition, *noises)
    return policy.executed(one_step), policy.executed(chain.samples[-1])


@torch.no_grad()
def measure_parity(
    policy: DiffusionPolicy,
    folder: Path,
    observations: Observations,
    seed: int = 0,
    samples: int | None = None,
) -> float:
    """Largest difference of exported and trained actions, as a fraction of the action range.

    At least ``samples`` observations (default: ``PARITY_SAMPLES``), drawn at random from real ones,
    each with its own noise, one half one by one and the other in batches, through both graphs; the
    K-step graph deterministic and stochastic.
    """
    samples = PARITY_SAMPLES if samples is None else samples
    generator = torch.Generator().manual_seed(seed)
    low, high = np.array(policy.spec.action_low), np.array(policy.spec.action_high)
    one_step, chain = open_session(folder / POLICY), open_session(folder / DENOISER)
    worst = 0.0
    done = 0
    while done < samples:
        batch = 1 if done < samples // 2 else min(PARITY_BATCH, samples - done)
        index = torch.randint(len(observations[0]), (batch,), generator=generator)
        inputs = example_inputs(policy, batch, seed + 1 + done)
        inputs.update(_observed(policy, observations, index))
        inputs["noise_scale"] = torch.tensor(float(done % 2))
        exported_actions = (_run(one_step, inputs)[0], _run(chain, inputs)[0])
        for trained, exported in zip(_trained(policy, inputs), exported_actions, strict=True):
            gap = np.abs(trained.numpy() - exported) / (high - low)
            # NaN must not slip through a comparison.
            worst = max(worst, float(gap.max())) if np.isfinite(gap).all() else float("inf")
        done += batch
    return worst


@torch.no_grad()
def write_selftest(
    policy: DiffusionPolicy, path: Path, observations: Observations, seed: int = 0
) -> None:
    """Write real observations with noise, and the actions that the trained policy gives for them.

    Whoever loads the bundle can so prove that it does there what it did here.
    """
    count = SELFTEST_SAMPLES
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(observations[0]), (count,), generator=generator)
    inputs = example_inputs(policy, count, seed)
    inputs.update(_observed(policy, observations, index))
    expected = dict(zip(("action", "chain_action"), _trained(policy, inputs), strict=True))
    inputs["step_noise"] = inputs["step_noise"].transpose(0, 1)  # samples first
    inputs["noise_scale"] = inputs["noise_scale"].expand(count)
    tensors = {name: tensor.contiguous() for name, tensor in (inputs | expected).items()}
    save_tensors(path, tensors)


def export_bundle(
    policy: DiffusionPolicy,
    config: TrainConfig,
    task: Task,
    final: Path,
    *,
    stage: str,
    parent: str,
    observations: Observations,
    metrics: Mapping[str, float],
    parity_samples: int | None = None,
) -> Manifest:
    """Write the bundle ``final``, unless its graphs differ from the trained policy.

    Args:
        policy: on the CPU.
        observations: real states (M, n_o, d_s), clouds (M, n_o, N, 3) and images
            (M, n_o, H, W, 3) for the parity check.
        parity_samples: how many of them it takes (default: ``PARITY_SAMPLES``); fewer only where
            nobody runs the policy.

    Raises:
        ContractError: the export isn't faithful, or ``final`` exists.
    """
    staging = final.with_name(f".{final.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    export_graphs(policy, staging)
    parity = measure_parity(
        policy, staging, observations, seed=config.run.seed, samples=parity_samples
    )
    if parity > PARITY_LIMIT:
        shutil.rmtree(staging)
        raise ContractError(
            f"{final}: not exported, because the ONNX policy differs from the trained one by "
            f"{parity:.1e} of the action range (limit {PARITY_LIMIT:.0e})"
        )
    write_selftest(policy, staging / SELFTEST, observations, seed=config.run.seed)
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
        image_shape=None if spec.image_shape is None else list(spec.image_shape),
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
