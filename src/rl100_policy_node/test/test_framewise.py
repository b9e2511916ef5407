"""No frame is encoded twice, and the actions are those of the whole graph.

Pins: which frames go through the encoder while observations follow each other; that graphs without
names for their frames run whole; that an encoder that fails leaves nothing wrong behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from rl100_contracts.bundle import FRAME_CODE, POLICY, SELFTEST
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task
from rl100_policy_node.checker import copy_checked
from rl100_policy_node.framewise import ENCODER, HEAD, FramewiseGraph, split
from rl100_policy_node.graphs import Graph, ProviderError, read_model
from rl100_policy_node.runtime import DecisionNoise, PolicyRuntime
from rl100_policy_node.testing import framewise_graph, self_test, write_bundle

MakeBundle = Callable[..., Path]


def _observations(task: Task, count: int, seed: int = 0) -> list[Observation]:
    """As they come at control rate: all frames but the newest were in the one before."""
    rng, n_o = np.random.default_rng(seed), task.control.n_obs_steps
    total = count + n_o - 1
    states = rng.normal(size=(total, task.observation.state_dim)).astype(np.float32)
    clouds = rng.normal(size=(total, task.observation.num_points, 3)).astype(np.float32)
    return [Observation(i, states[i : i + n_o], clouds[i : i + n_o]) for i in range(count)]


@pytest.fixture
def runtime(make_bundle: MakeBundle, task: Task) -> PolicyRuntime:
    return PolicyRuntime(make_bundle(policy=framewise_graph(task)), task)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, runtime: PolicyRuntime) -> Iterator[list[float]]:
    """First value of the state of each frame that went through the encoder."""
    seen: list[float] = []
    run = Graph.run

    def counted(graph: Graph) -> object:
        if FRAME_CODE in graph.outputs:
            seen.append(float(graph.inputs["frame_state"][0, 0]))
        return run(graph)

    monkeypatch.setattr(Graph, "run", counted)
    yield seen


def _act(runtime: PolicyRuntime, observation: Observation) -> np.ndarray:
    return runtime.one_step(observation, DecisionNoise(0).of(observation))


def test_actions_are_those_of_the_whole_graph_in_any_order(
    runtime: PolicyRuntime, make_bundle: MakeBundle, task: Task
) -> None:
    assert isinstance(runtime._policy, FramewiseGraph)
    whole = framewise_graph(task)
    del whole.graph.value_info[:]
    reference = PolicyRuntime(make_bundle("whole", policy=whole), task)
    assert isinstance(reference._policy, Graph)
    observations = _observations(task, 6)
    turned = Observation(0, observations[2].state[::-1].copy(), observations[2].cloud[::-1].copy())
    for index in (0, 1, 2, 2, 0, 5, 4, 3, 1):
        for observation in (observations[index], turned):
            found, expected = _act(runtime, observation), _act(reference, observation)
            np.testing.assert_allclose(found, expected, atol=1e-6)
    # The order of the frames matters to this graph, or the test would say nothing.
    other, expected = _act(runtime, turned), _act(reference, observations[2])
    assert np.abs(other - expected).max() > 1e-3


def test_a_frame_is_encoded_once_while_observations_follow_each_other(
    runtime: PolicyRuntime, encoded: list[float], task: Task
) -> None:
    observations = _observations(task, 5)
    for observation in observations:
        _act(runtime, observation)
    frames = [*observations[0].state[:, 0], *(seen.state[-1, 0] for seen in observations[1:])]
    assert encoded == [float(value) for value in frames]
    _act(runtime, observations[-1])
    assert len(encoded) == len(frames)


def test_a_frame_of_which_one_part_is_another_is_encoded_again(
    runtime: PolicyRuntime, encoded: list[float], task: Task
) -> None:
    (first,) = _observations(task, 1)
    before = _act(runtime, first)
    count = len(encoded)
    assert first.cloud is not None
    cloud = first.cloud.copy()
    cloud[-1, -1, -1] += 100.0
    after = _act(runtime, Observation(0, first.state, cloud))
    assert len(encoded) == count + 1
    assert not np.array_equal(before, after)


def test_an_encoder_that_fails_leaves_nothing_wrong_behind(
    runtime: PolicyRuntime, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = _observations(task, 3)
    expected = [_act(runtime, seen) for seen in (first, second, third)]
    run = Graph.run

    def fails_for_the_newest(graph: Graph) -> object:
        newest = FRAME_CODE in graph.outputs and graph.inputs["frame_state"][0, 0]
        if newest == third.state[-1, 0]:
            raise ProviderError("out of memory")
        return run(graph)

    _act(runtime, first)
    with monkeypatch.context() as patch:
        patch.setattr(Graph, "run", fails_for_the_newest)
        with pytest.raises(ProviderError):
            _act(runtime, third)
    for observation, wanted in zip((second, third, first), np.roll(expected, -1, 0), strict=True):
        np.testing.assert_array_equal(_act(runtime, observation), wanted)


@pytest.mark.parametrize("optimise", [True, False])
def test_a_checked_copy_has_both_parts_and_passes_the_self_test(
    tmp_path: Path, task: Task, optimise: bool
) -> None:
    policy = framewise_graph(task)
    source = PolicyRuntime(write_bundle(tmp_path / "source", task, policy=policy), task)
    (observation,) = _observations(task, 1)
    samples = self_test(task, 0.01)
    for name, value in (("state", observation.state), ("cloud", observation.cloud)):
        samples[name] = np.stack([value, value])
    noise = DecisionNoise(0).of(observation).standard_normal((1, 4, 2), dtype=np.float32)
    samples["noise"] = np.concatenate([noise, noise])
    samples["action"] = np.stack([_act(source, observation)] * 2)
    folder = write_bundle(tmp_path / "made", task, policy=policy, selftest=samples)
    checked = tmp_path / "checked"
    checked.mkdir()
    copy_checked(folder, task, checked, [POLICY], optimise=optimise)
    assert (checked / ENCODER).is_file() and (checked / HEAD).is_file()
    assert not (checked / POLICY).exists() and (checked / SELFTEST).is_file()
    runtime = PolicyRuntime(folder, task, chain=False, checked=checked)
    assert runtime.self_tested and isinstance(runtime._policy, FramewiseGraph)
    np.testing.assert_allclose(_act(runtime, observation), _act(source, observation), atol=1e-6)


def test_one_frame_or_no_names_means_one_graph(make_bundle: MakeBundle, task: Task) -> None:
    path = make_bundle(policy=framewise_graph(task)) / POLICY
    assert split(read_model(path, path.read_bytes()), task.control.n_obs_steps) is not None
    assert split(read_model(path, path.read_bytes()), 1) is None
    model = onnx.load(path)
    unnamed = [known for known in model.graph.value_info if known.name != FRAME_CODE]
    del model.graph.value_info[:]
    model.graph.value_info.extend(unnamed)
    onnx.save(model, path)
    assert split(read_model(path, path.read_bytes()), task.control.n_obs_steps) is None
