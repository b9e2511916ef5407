"""Only a bundle that is whole and made for the running task is ever run.

Pins: actions, chain and log-probabilities come out as the graphs define them; noise is a function
of seed and observation; each kind of damage is refused with one sentence that names the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from rl100_contracts.bundle import (
    MANIFEST,
    POLICY,
    SELFTEST,
    TASK,
    load_manifest,
    verify_bundle,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_policy_node.bad_bundles import (
    ELSEWHERE,
    OUTSIDE,
    MakeBundle,
    edit_manifest,
    edit_policy,
    rehash,
)
from rl100_policy_node.providers import CPU
from rl100_policy_node.runtime import DecisionNoise, PolicyRuntime
from rl100_policy_node.testing import flat_observation, seeing_graph, self_test


def test_one_step_is_the_graph_on_the_seeded_noise(make_bundle: MakeBundle, task: Task) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    observation = flat_observation(task)
    actions = runtime.one_step(observation, DecisionNoise(7).of(observation))
    noise = DecisionNoise(7).of(observation).standard_normal((1, 4, 2), dtype=np.float32)
    np.testing.assert_allclose(actions, 0.01 * noise[0], atol=1e-7)


def test_chain_starts_at_the_noise_and_is_deterministic_on_request(
    make_bundle: MakeBundle, task: Task
) -> None:
    runtime = PolicyRuntime(make_bundle(), task)
    observation = flat_observation(task)
    plain = runtime.k_step(observation, DecisionNoise(0).of(observation))
    assert plain.chain.shape == (4, 4, 2) and plain.log_prob.shape == (3,)
    np.testing.assert_array_equal(plain.actions, plain.chain[0])
    noisy = runtime.k_step(observation, DecisionNoise(0).of(observation), stochastic=True)
    np.testing.assert_array_equal(noisy.chain[0], plain.chain[0])
    moves = np.diff(noisy.chain, axis=0)
    assert (np.abs(moves) > 0).all()
    np.testing.assert_allclose(noisy.log_prob, (moves**2).sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(noisy.actions, noisy.chain[-1])


def test_another_task_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    data = task.model_dump(mode="json")
    changed = Task.model_validate({**data, "episode": {"max_steps": 7}})
    with pytest.raises(ContractError, match="another version of task 'push'"):
        PolicyRuntime(make_bundle("a", made_for=changed), task)
    other = Task.model_validate({**data, "name": "lift"})
    with pytest.raises(ContractError, match="trained for task 'lift', not 'push': give a"):
        PolicyRuntime(make_bundle("b", made_for=other), task)


@pytest.mark.parametrize("place", OUTSIDE)
def test_external_data_is_refused(make_bundle: MakeBundle, task: Task, place: str) -> None:
    """Also where ONNX Runtime finds what lies outside, and would run with it."""
    folder = make_bundle()
    edit_policy(folder, OUTSIDE[place])
    (folder / ELSEWHERE).write_bytes(np.ones(1, np.int64).tobytes())
    with pytest.raises(ContractError, match="stored outside the file"):
        PolicyRuntime(folder, task)


def test_a_compiled_part_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    """TensorRT and OpenVINO would load it from the file that it names."""

    def compiled(model: onnx.ModelProto) -> None:
        path = {"embed_mode": 0, "ep_cache_context": ELSEWHERE}
        node = helper.make_node("EPContext", ["noise"], ["x"], domain="com.microsoft", **path)
        model.graph.node.append(node)
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    folder = make_bundle()
    edit_policy(folder, compiled)
    with pytest.raises(ContractError, match="compiled for one kind of processor"):
        PolicyRuntime(folder, task)


def test_wrong_graphs_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()

    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = model.graph.node[-1].output[0] = "act"

    edit_policy(folder, rename)
    with pytest.raises(ContractError, match="output 'action' is missing"):
        PolicyRuntime(folder, task)
    (folder / POLICY).write_bytes(b"not a model")
    rehash(folder)
    with pytest.raises(ContractError, match=r"policy\.onnx: not a readable ONNX model"):
        PolicyRuntime(folder, task)


def test_wrong_shape_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()

    def widen(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9

    edit_policy(folder, widen)
    with pytest.raises(ContractError, match="input 'state' has shape"):
        PolicyRuntime(folder, task)


def test_values_that_are_not_finite_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    with pytest.raises(ContractError, match="not finite"):
        PolicyRuntime(make_bundle(gain=float("nan")), task)


def test_path_outside_and_missing_files_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    files = load_manifest(folder).files
    edit_manifest(folder, files={**files, "../other": "0" * 64})
    with pytest.raises(ContractError, match="outside the bundle"):
        verify_bundle(folder, task)
    edit_manifest(folder, files=files, format_version=2)
    with pytest.raises(ContractError, match="format_version"):
        verify_bundle(folder, task)
    edit_manifest(folder, format_version=1)
    verify_bundle(folder, task)
    (folder / POLICY).unlink()
    with pytest.raises(ContractError, match="missing"):
        verify_bundle(folder, task)
    with pytest.raises(ContractError, match="no such bundle"):
        PolicyRuntime(folder / "none", task)


def test_a_link_out_of_the_bundle_is_refused(
    make_bundle: MakeBundle, task: Task, tmp_path: Path
) -> None:
    folder = make_bundle()
    (folder / POLICY).rename(tmp_path / "elsewhere.onnx")
    (folder / POLICY).symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ContractError, match="outside the bundle"):
        PolicyRuntime(folder, task)


def test_none_of_1000_damaged_bytes_is_missed(make_bundle: MakeBundle, task: Task) -> None:
    """In any file, the manifest too; only white space of the manifest may change unseen."""
    folder = make_bundle(selftest=self_test(task, 0.01))
    sound = load_manifest(folder)
    files = [path for path in sorted(folder.iterdir()) if path.stat().st_size]
    assert {path.name for path in files} >= {POLICY, MANIFEST, SELFTEST, TASK}
    rng, refused = np.random.default_rng(0), 0
    for _ in range(1000):
        path = files[rng.integers(len(files))]
        data = path.read_bytes()
        place = int(rng.integers(len(data)))
        path.write_bytes(
            data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :]
        )
        try:
            PolicyRuntime(folder, task)
        except ContractError:
            refused += 1
        else:
            assert path.name == MANIFEST and load_manifest(folder) == sound
        path.write_bytes(data)
    assert refused > 950
    PolicyRuntime(folder, task)


def test_truncated_files_are_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    for path in folder.iterdir():
        data = path.read_bytes()
        for size in {0, 1, len(data) // 2, len(data) - 2} - {len(data)}:
            if 0 <= size < len(data):
                path.write_bytes(data[:size])
                with pytest.raises(ContractError):
                    PolicyRuntime(folder, task)
        path.write_bytes(data)
    PolicyRuntime(folder, task)


# --- self-test


def test_self_test_is_passed_and_said(make_bundle: MakeBundle, task: Task) -> None:
    assert PolicyRuntime(make_bundle("a", selftest=self_test(task, 0.01)), task).self_tested
    assert not PolicyRuntime(make_bundle("b"), task).self_tested


def test_other_actions_than_the_trained_ones_are_refused(
    make_bundle: MakeBundle, task: Task
) -> None:
    with pytest.raises(ContractError, match="self-test failed, its actions differ by"):
        PolicyRuntime(make_bundle("a", selftest=self_test(task, 0.02)), task)
    samples = self_test(task, 0.01)
    samples["chain_action"][-1, -1, -1] += 0.01
    with pytest.raises(ContractError, match="self-test failed"):
        PolicyRuntime(make_bundle("b", selftest=samples), task)
    samples["chain_action"][-1, -1, -1] = np.nan
    with pytest.raises(ContractError, match="self-test failed"):
        PolicyRuntime(make_bundle("c", selftest=samples), task)


@pytest.mark.parametrize("name", ["state", "step_noise", "action", "chain_action"])
def test_a_self_test_that_lacks_something_is_refused(
    make_bundle: MakeBundle, task: Task, name: str
) -> None:
    samples = self_test(task, 0.01)
    del samples[name]
    with pytest.raises(ContractError, match=f"self-test lacks '{name}'"):
        PolicyRuntime(make_bundle("a", selftest=samples), task)
    samples = self_test(task, 0.01)
    samples[name] = samples[name][:, :1]
    with pytest.raises(ContractError, match=f"'{name}' has the wrong shape"):
        PolicyRuntime(make_bundle("b", selftest=samples), task)


def test_what_is_no_self_test_is_refused(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle(selftest=self_test(task, 0.01))
    (folder / SELFTEST).write_bytes(b"no tensors")
    rehash(folder)
    with pytest.raises(ContractError, match="not a readable self-test"):
        PolicyRuntime(folder, task)


# --- providers


def test_a_provider_that_is_not_installed_is_replaced_with_a_reason(
    make_bundle: MakeBundle, task: Task
) -> None:
    missing = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    for short, name in missing.items():
        if name in onnxruntime.get_available_providers():
            continue
        provider = PolicyRuntime(make_bundle(short), task, provider=short).provider
        assert (provider.asked, provider.name) == (short, CPU)
        assert name in provider.reason


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_does_not_start_is_replaced_with_a_reason(
    make_bundle: MakeBundle, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a CUDA library that is missing: ONNX Runtime goes on with its CPU provider."""
    claimed = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    for asked in ("cuda", "CUDAExecutionProvider", "auto"):
        runtime = PolicyRuntime(make_bundle(asked), task, provider=asked)
        assert (runtime.provider.asked, runtime.provider.name) == (asked, CPU)
        assert "CUDAExecutionProvider" in runtime.provider.reason
        observation = flat_observation(task)
        assert runtime.one_step(observation, DecisionNoise(0).of(observation)).shape == (4, 2)


def test_cpu_needs_no_fallback(make_bundle: MakeBundle, task: Task) -> None:
    for asked in ("cpu", "Cpu", CPU):
        assert (
            PolicyRuntime(make_bundle(f"bundle-{asked}"), task, provider=asked).provider.reason
            == ""
        )


def test_unknown_provider_names_the_known_ones(make_bundle: MakeBundle, task: Task) -> None:
    with pytest.raises(ContractError, match="choose one of auto, cpu, openvino, cuda, tensorrt"):
        PolicyRuntime(make_bundle(), task, provider="QuantumExecutionProvider")


# --- buffers


def test_buffers_hold_nothing_of_the_observation_before(
    make_bundle: MakeBundle, task: Task
) -> None:
    """Results are copies, and each run sees its own inputs only."""
    runtime = PolicyRuntime(make_bundle(policy=seeing_graph(task)), task)
    first, second = flat_observation(task, 0.1), flat_observation(task, 0.7)
    rng = np.random.default_rng(0)
    a = runtime.one_step(first, rng)
    b = runtime.one_step(second, rng)
    np.testing.assert_allclose(a, 0.1, atol=1e-6)
    np.testing.assert_allclose(b, 0.7, atol=1e-6)
    chains = [runtime.k_step(first, DecisionNoise(seed).of(first)).chain for seed in (0, 1)]
    assert (chains[0] != chains[1]).any()


# --- what is loaded when


def test_the_chain_can_be_loaded_later(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle(selftest=self_test(task, 0.01))
    runtime, whole = PolicyRuntime(folder, task, chain=False), PolicyRuntime(folder, task)
    assert not runtime.has_chain and whole.has_chain
    runtime.load_chain()
    observation = flat_observation(task)
    first, second = (
        r.k_step(observation, DecisionNoise(0).of(observation)) for r in (runtime, whole)
    )
    np.testing.assert_array_equal(first.chain, second.chain)


def test_the_chain_of_another_bundle_is_not_loaded(make_bundle: MakeBundle, task: Task) -> None:
    folder = make_bundle()
    runtime = PolicyRuntime(folder, task, chain=False)
    (folder / "config.yaml").write_text("other: 1\n")
    with pytest.raises(ContractError, match="damaged or changed"):
        runtime.load_chain()
    rehash(folder)
    with pytest.raises(ContractError, match="is another bundle than the one that was loaded"):
        runtime.load_chain()
