"""A small real bundle, built with onnx alone, so that no training code is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rl100_contracts.bundle import CONFIG, DENOISER, POLICY, TASK, WEIGHTS, Manifest, write_manifest
from rl100_contracts.task import Task, load_task

STEPS = 3
HORIZON = 4


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value.astype(np.float32), name)


def _observation_inputs(task: Task) -> list[onnx.ValueInfoProto]:
    n_o, points = task.control.n_obs_steps, task.observation.cloud.num_points
    return [
        _value("state", ["B", n_o, task.observation.state_dim]),
        _value("cloud", ["B", n_o, points, 3]),
        _value("noise", ["B", HORIZON, task.action.dim]),
    ]


def policy_graph(task: Task, gain: float = 0.01) -> onnx.ModelProto:
    """action = gain * noise + 0 * (mean of state and cloud): uses every input."""
    nodes = [
        helper.make_node("ReduceMean", ["state"], ["s"], keepdims=0),
        helper.make_node("ReduceMean", ["cloud"], ["c"], keepdims=0),
        helper.make_node("Add", ["s", "c"], ["seen"]),
        helper.make_node("Mul", ["seen", "zero"], ["nothing"]),
        helper.make_node("Mul", ["noise", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["action"]),
    ]
    constants = [_constant("gain", np.array(gain)), _constant("zero", np.array(0.0))]
    output = _value("action", ["B", HORIZON, task.action.dim])
    graph = helper.make_graph(nodes, "policy", _observation_inputs(task), [output], constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def denoiser_graph(task: Task) -> onnx.ModelProto:
    """chain = [noise, noise + cumulated scaled step noise ...]; action = its last element."""
    dim = task.action.dim
    inputs = [
        *_observation_inputs(task),
        _value("step_noise", [STEPS, "B", HORIZON, dim]),
        _value("noise_scale", []),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["state"], ["s"], keepdims=0),
        helper.make_node("ReduceMean", ["cloud"], ["c"], keepdims=0),
        helper.make_node("Add", ["s", "c"], ["seen"]),
        helper.make_node("Mul", ["seen", "zero"], ["nothing"]),
        helper.make_node("Mul", ["step_noise", "noise_scale"], ["moves"]),
        helper.make_node("Unsqueeze", ["noise", "first"], ["start"]),
        helper.make_node("Concat", ["start", "moves"], ["parts"], axis=0),
        helper.make_node("CumSum", ["parts", "axis"], ["chain"]),
        helper.make_node("Gather", ["chain", "last"], ["final"], axis=0),
        helper.make_node("Add", ["final", "nothing"], ["action"]),
        helper.make_node("Mul", ["moves", "moves"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "inner"], ["log_prob"], keepdims=0),
    ]
    constants = [
        _constant("zero", np.array(0.0)),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "first"),
        numpy_helper.from_array(np.array(0, dtype=np.int64), "axis"),
        numpy_helper.from_array(np.array(STEPS, dtype=np.int64), "last"),
        numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "inner"),
    ]
    outputs = [
        _value("action", ["B", HORIZON, dim]),
        _value("chain", [STEPS + 1, "B", HORIZON, dim]),
        _value("log_prob", [STEPS, "B"]),
    ]
    graph = helper.make_graph(nodes, "denoiser", inputs, outputs, constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task("push")


BundleMaker = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path, task: Task) -> BundleMaker:
    def make(
        version: str = "test-1",
        policy: onnx.ModelProto | None = None,
        gain: float = 0.01,
        made_for: Task = task,
    ) -> Path:
        folder = tmp_path / version
        folder.mkdir()
        (folder / POLICY).write_bytes((policy or policy_graph(task, gain)).SerializeToString())
        (folder / DENOISER).write_bytes(denoiser_graph(task).SerializeToString())
        (folder / WEIGHTS).write_bytes(b"")
        (folder / CONFIG).write_text("{}\n")
        (folder / TASK).write_text(made_for.to_yaml())
        write_manifest(
            folder,
            Manifest(
                policy_version=version,
                task=made_for.name,
                task_hash=made_for.hash,
                stage="il",
                created="2026-01-01T00:00:00Z",
                n_obs_steps=task.control.n_obs_steps,
                state_dim=task.observation.state_dim,
                num_points=task.observation.cloud.num_points,
                horizon=HORIZON,
                n_action_steps=task.control.n_action_steps,
                action_dim=task.action.dim,
                denoising_steps=STEPS,
                timesteps=[67, 34, 1],
                export_parity=0.0,
                files={},
            ),
        )
        return folder

    return make
