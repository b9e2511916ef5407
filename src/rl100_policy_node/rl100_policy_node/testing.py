"""For tests: small real bundles, built with onnx alone, so that no training code is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from rl100_contracts.bundle import (
    CONFIG,
    DENOISER,
    POLICY,
    SELFTEST,
    TASK,
    WEIGHTS,
    Manifest,
    write_manifest,
)
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task

STEPS = 3
HORIZON = 4


def flat_observation(task: Task, value: float = 0.1) -> Observation:
    """An observation of nothing but ``value``."""
    n_o, points = task.control.n_obs_steps, task.observation.num_points
    state = np.full((n_o, task.observation.state_dim), value, np.float32)
    return Observation(10**9, state, np.full((n_o, points, 3), value, np.float32))


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value.astype(np.float32), name)


def _observation_inputs(task: Task) -> list[onnx.ValueInfoProto]:
    n_o, points = task.control.n_obs_steps, task.observation.num_points
    return [
        _value("state", ["B", n_o, task.observation.state_dim]),
        _value("cloud", ["B", n_o, points, 3]),
        _value("noise", ["B", HORIZON, task.action.dim]),
    ]


def _seen_nodes() -> list[onnx.NodeProto]:
    """``seen``: mean of state and cloud, summed; ``nothing``: 0, which depends on both."""
    return [
        helper.make_node("ReduceMean", ["state"], ["s"], keepdims=0),
        helper.make_node("ReduceMean", ["cloud"], ["c"], keepdims=0),
        helper.make_node("Add", ["s", "c"], ["seen"]),
        helper.make_node("Mul", ["seen", "zero"], ["nothing"]),
    ]


def policy_graph(task: Task, gain: float = 0.01) -> onnx.ModelProto:
    """action = gain * noise + 0 * (mean of state and cloud): uses every input."""
    nodes = [
        *_seen_nodes(),
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
        *_seen_nodes(),
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


def heavy_graph(task: Task, products: int, size: int) -> onnx.ModelProto:
    """As ``policy_graph``, with ``size``² weights and so many products of matrices that large."""
    model = policy_graph(task)
    graph = model.graph
    matrix = _constant("matrix", np.full((size, size), 1.0 / size))
    graph.initializer.append(matrix)
    graph.node.pop()  # the last Add
    graph.node.append(helper.make_node("Add", ["matrix", "seen"], ["m0"]))
    for i in range(products):  # of what depends on the input, so that nothing can be precomputed
        graph.node.append(helper.make_node("MatMul", [f"m{i}", "matrix"], [f"m{i + 1}"]))
    graph.node.append(helper.make_node("ReduceMean", [f"m{products}"], ["mean"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["mean", "zero"], ["small"]))
    graph.node.append(helper.make_node("Add", ["scaled", "small"], ["action"]))
    return model


def self_test(task: Task, gain: float) -> dict[str, np.ndarray]:
    """Samples of a self-test that the two small graphs pass."""
    rng = np.random.default_rng(0)
    count, n_o, points = 2, task.control.n_obs_steps, task.observation.num_points
    chunk = (HORIZON, task.action.dim)
    noise = rng.normal(size=(count, *chunk))
    step_noise = rng.normal(size=(count, STEPS, *chunk))
    samples = {
        "state": rng.normal(size=(count, n_o, task.observation.state_dim)),
        "cloud": rng.normal(size=(count, n_o, points, 3)),
        "noise": noise,
        "step_noise": step_noise,
        "noise_scale": np.ones(count),
        "action": gain * noise,
        "chain_action": noise + step_noise.sum(axis=1),
    }
    return {name: value.astype(np.float32) for name, value in samples.items()}


def seeing_graph(task: Task) -> onnx.ModelProto:
    """Every action is the mean of all that is seen: state and cloud with equal weight."""
    model = policy_graph(task, gain=0.0)
    graph = model.graph
    for node in graph.node:
        if node.output[0] == "nothing":
            node.input[1] = "half"
    graph.initializer.append(_constant("half", np.array(0.5)))
    del graph.initializer[1]
    return model


def framewise_graph(task: Task) -> onnx.ModelProto:
    """Actions are the codes of the frames, weighted by 1, 2, … and summed, plus a little noise.

    The code of a frame, which has a name inside the graph as its frames have, is the first value
    of its state and of its cloud's mean.
    """
    n_o, points = task.control.n_obs_steps, task.observation.num_points
    dim = task.observation.state_dim
    nodes = [
        helper.make_node("Reshape", ["state", "flat_state"], ["frame_state"]),
        helper.make_node("Reshape", ["cloud", "flat_cloud"], ["frame_cloud"]),
        helper.make_node("ReduceMean", ["frame_cloud"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["frame_state", "mean"], ["joint"], axis=1),
        helper.make_node("Gather", ["joint", "chosen"], ["frame_code"], axis=1),
        helper.make_node("Reshape", ["frame_code", "by_frame"], ["codes"]),
        helper.make_node("Mul", ["codes", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "frames"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["noise", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "sum"], ["action"]),
    ]
    integers = {
        "flat_state": [-1, dim],
        "flat_cloud": [-1, points, 3],
        "chosen": [0, dim],
        "by_frame": [-1, n_o, 1, 2],
        "frames": [1],
    }
    constants = [
        _constant("gain", np.array(0.01)),
        _constant("weights", np.arange(1.0, n_o + 1).reshape(1, n_o, 1, 1)),
        *(
            numpy_helper.from_array(np.array(value, dtype=np.int64), name)
            for name, value in integers.items()
        ),
    ]
    inside = [
        _value("frame_state", ["frames", dim]),
        _value("frame_cloud", ["frames", points, 3]),
        _value("frame_code", ["frames", 2]),
    ]
    output = _value("action", ["B", HORIZON, task.action.dim])
    graph = helper.make_graph(
        nodes, "framewise", _observation_inputs(task), [output], constants, value_info=inside
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def write_bundle(
    folder: Path,
    task: Task,
    *,
    policy: onnx.ModelProto | None = None,
    gain: float = 0.01,
    selftest: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a bundle, with the name of the folder as its version; returns the folder.

    Args:
        folder: made here.
        task: that it is for.
        policy: the one-step graph (default: ``policy_graph`` with ``gain``).
        gain: of the noise.
        selftest: its samples, when it shall have a self-test.
    """
    folder.mkdir()
    (folder / POLICY).write_bytes((policy or policy_graph(task, gain)).SerializeToString())
    (folder / DENOISER).write_bytes(denoiser_graph(task).SerializeToString())
    (folder / WEIGHTS).write_bytes(b"")
    (folder / CONFIG).write_text("{}\n")
    (folder / TASK).write_text(task.to_yaml())
    if selftest is not None:
        safetensors.numpy.save_file(selftest, folder / SELFTEST)
    write_manifest(
        folder,
        Manifest(
            policy_version=folder.name,
            task=task.name,
            task_hash=task.hash,
            stage="il",
            parent="",
            created="2026-01-01T00:00:00Z",
            n_obs_steps=task.control.n_obs_steps,
            state_dim=task.observation.state_dim,
            num_points=task.observation.num_points,
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
