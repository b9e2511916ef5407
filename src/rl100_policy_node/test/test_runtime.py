"""Only a bundle that is whole and made for the running task is ever run.

Pins: actions, chain and log-probabilities come out as the graphs define them; noise is a function
of seed and observation; each kind of damage is refused with one sentence that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from rl100_contracts.bundle import MANIFEST, POLICY, load_manifest, verify_bundle, write_manifest
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task
from rl100_policy_node.runtime import PolicyRuntime, decision_rng

MakeBundle = Callable[..., Path]


def _observation(task: Task, value: float = 0.1) -> Observation:
    n_o, points = task.control.n_obs_steps, task.observation.cloud.num_points
    state = np.full((n_o, task.observation.state_dim), value, np.float32)
    return Observation(10**9, state, np.full((n_o, points, 3), value, np.float32))


def _rehash(folder: Path) -> None:
    """As an attacker would: the checksums fit again."""
    write_manifest(folder, load_manifest(folder))


def test_one_step_is_the_graph_on_the_seeded_noise(make_bundle: MakeBundle, task: Task) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    observation = _observation(task)
    actions = runtime.one_step(observation, decision_rng(7, observation))
    noise = decision_rng(7, observation).standard_normal((1, 4, 2), dtype=np.float32)
    np.testing.assert_allclose(actions, 0.01 * noise[0], atol=1e-7)


def test_noise_depends_on_seed_and_observation(make_bundle: MakeBundle, task: Task) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    first, second = _observation(task), _observation(task, 0.2)
    base = runtime.one_step(first, decision_rng(0, first))
    assert (base == runtime.one_step(first, decision_rng(0, first))).all()
    assert (base != runtime.one_step(first, decision_rng(1, first))).all()
    assert (base != runtime.one_step(second, decision_rng(0, second))).all()


def test_chain_starts_at_the_noise_and_is_deterministic_on_request(
    make_bundle: MakeBundle, task: Task
) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    observation = _observation(task)
    plain = runtime.k_step(observation, decision_rng(0, observation))
    assert plain.chain.shape == (4, 4, 2) and plain.log_prob.shape == (3,)
    np.testing.assert_array_equal(plain.actions, plain.chain[0])
    noisy = runtime.k_step(observation, decision_rng(0, observation), stochastic=True)
    np.testing.assert_array_equal(noisy.chain[0], plain.chain[0])
    moves = np.diff(noisy.chain, axis=0)
    assert (np.abs(moves) > 0).all()
    np.testing.assert_allclose(noisy.log_prob, (moves**2).sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(noisy.actions, noisy.chain[-1])


def test_a_flipped_byte_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    data = bytearray((folder / POLICY).read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), size=20):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        (folder / POLICY).write_bytes(damaged)
        with pytest.raises(ContractError, match=r"policy\.onnx: damaged"):
            PolicyRuntime(folder, task)
    (folder / POLICY).write_bytes(data)
    PolicyRuntime(folder, task)


def test_another_task_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    data = task.model_dump(mode="json")
    changed = Task.model_validate({**data, "episode": {"max_steps": 7}})
    with pytest.raises(ContractError, match="another version of task 'push'"):
        PolicyRuntime(make_bundle("a", made_for=changed), task)
    other = Task.model_validate({**data, "name": "lift"})
    with pytest.raises(ContractError, match="trained for task 'lift'"):
        PolicyRuntime(make_bundle("b", made_for=other), task)


def test_external_data_is_refused(make_bundle: MakeBundle, task: Task, tmp_path: Path) -> None:
    folder = make_bundle()
    model = onnx.load(str(folder / POLICY))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    (folder / POLICY).write_bytes(model.SerializeToString())
    _rehash(folder)
    with pytest.raises(ContractError, match="stored outside the file"):
        PolicyRuntime(folder, task)


def test_wrong_graphs_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    model = onnx.load(str(folder / POLICY))
    model.graph.output[0].name = "act"
    model.graph.node[-1].output[0] = "act"
    (folder / POLICY).write_bytes(model.SerializeToString())
    _rehash(folder)
    with pytest.raises(ContractError, match="output 'action' is missing"):
        PolicyRuntime(folder, task)
    (folder / POLICY).write_bytes(b"not a model")
    _rehash(folder)
    with pytest.raises(ContractError, match=r"policy\.onnx: not a readable ONNX model"):
        PolicyRuntime(folder, task)


def test_wrong_shape_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    model = onnx.load(str(folder / POLICY))
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_value = 9
    (folder / POLICY).write_bytes(model.SerializeToString())
    _rehash(folder)
    with pytest.raises(ContractError, match="input 'state' has shape"):
        PolicyRuntime(folder, task)


def test_values_that_are_not_finite_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    with pytest.raises(ContractError, match="not finite"):
        PolicyRuntime(make_bundle(gain=float("nan")), task)


def test_path_outside_and_missing_files_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    manifest = json.loads((folder / MANIFEST).read_text())
    outside = {**manifest, "files": {**manifest["files"], "../other": "0" * 64}}
    (folder / MANIFEST).write_text(json.dumps(outside))
    with pytest.raises(ContractError, match="outside the bundle"):
        verify_bundle(folder, task)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format_version": 2}))
    with pytest.raises(ContractError, match="format_version"):
        verify_bundle(folder, task)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / POLICY).unlink()
    with pytest.raises(ContractError, match="missing"):
        verify_bundle(folder, task)
    with pytest.raises(ContractError, match="no such bundle"):
        PolicyRuntime(folder / "none", task)


def test_unknown_provider_names_the_known_ones(make_bundle: MakeBundle, task: Task) -> None:
    with pytest.raises(ContractError, match="CPUExecutionProvider"):
        PolicyRuntime(make_bundle(), task, provider="QuantumExecutionProvider")
