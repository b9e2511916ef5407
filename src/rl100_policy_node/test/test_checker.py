"""Bundles are checked beside the running policy, and what is read is what was checked.

Pins: a checked copy gives the very same actions; the process goes on after a bad bundle and after
its end; a file that is replaced during the check is refused, or never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl100_contracts.bundle import (
    DENOISER,
    POLICY,
    SELFTEST,
    TASK,
    Manifest,
    load_manifest,
    verify_manifest,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_policy_node.bad_bundles import MakeBundle, edit_manifest, rehash
from rl100_policy_node.checker import BundleChecker, copy_checked
from rl100_policy_node.runtime import DecisionNoise, PolicyRuntime
from rl100_policy_node.testing import flat_observation, heavy_graph, self_test


@pytest.fixture
def checker(task: Task) -> Iterator[BundleChecker]:
    made = BundleChecker(task)
    yield made
    made.close()


@pytest.mark.parametrize("optimise", [False, True])
def test_a_checked_copy_gives_the_very_same_actions(
    make_bundle: MakeBundle, task: Task, checker: BundleChecker, optimise: bool
) -> None:
    model = heavy_graph(task, products=1, size=64)  # weights large enough to be split off
    folder = make_bundle(policy=model, selftest=self_test(task, 0.01))
    observation = flat_observation(task)
    direct = PolicyRuntime(folder, task)
    with checker.copy(folder, [POLICY, DENOISER], optimise=optimise) as copy:
        assert list(copy.glob("*.weights")), "the weights are in a file of their own"
        runtime = PolicyRuntime(folder, task, checked=copy)
    assert runtime.self_tested and runtime.manifest == direct.manifest
    for sample in (
        lambda r: r.one_step(observation, DecisionNoise(3).of(observation)),
        lambda r: r.k_step(observation, DecisionNoise(3).of(observation), stochastic=True).chain,
    ):
        np.testing.assert_array_equal(sample(runtime), sample(direct))


def test_one_process_refuses_a_bad_bundle_and_copies_the_next(
    make_bundle: MakeBundle, task: Task, checker: BundleChecker
) -> None:
    bad, good = make_bundle("bad"), make_bundle("good")
    (bad / POLICY).write_bytes(b"not a model")
    with (
        pytest.raises(ContractError, match=r"policy\.onnx: damaged or changed"),
        checker.copy(bad, [POLICY], optimise=True),
    ):
        pass
    rehash(bad)
    with (
        pytest.raises(ContractError, match=r"policy\.onnx: not a readable ONNX model"),
        checker.copy(bad, [POLICY], optimise=True),
    ):
        pass
    with checker.copy(good, [POLICY], optimise=True) as copy:
        assert PolicyRuntime(good, task, chain=False, checked=copy).manifest == load_manifest(good)


def test_a_check_that_breaks_off_is_one_sentence_and_the_next_one_works(
    make_bundle: MakeBundle, checker: BundleChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bundle()
    with (
        monkeypatch.context() as patched,
        pytest.raises(ContractError, match=r"the check of the bundle broke off \(exit status 1\)"),
    ):
        patched.setattr("sys.executable", "/bin/false")
        with checker.copy(folder, [POLICY], optimise=True):
            pass
    with checker.copy(folder, [POLICY], optimise=True) as copy:
        assert (copy / POLICY).is_file()


# --- what is read is what was checked


def _load(way: str, folder: Path, task: Task, target: Path) -> PolicyRuntime:
    """As at the start of the node (``here``), or as a pushed bundle (``beside``)."""
    if way == "here":
        return PolicyRuntime(folder, task)
    target.mkdir()
    copy_checked(folder, task, target, [POLICY, DENOISER], optimise=True)
    return PolicyRuntime(folder, task, checked=target)


@pytest.mark.parametrize("name", [POLICY, DENOISER, SELFTEST, TASK])
@pytest.mark.parametrize("way", ["here", "beside"])
def test_a_file_that_is_replaced_after_the_manifest_was_read_is_refused(
    make_bundle: MakeBundle,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    name: str,
) -> None:
    folder = make_bundle(selftest=self_test(task, 0.01))

    def verify_then_replace(*arguments: Any) -> Manifest:
        manifest = verify_manifest(*arguments)
        (folder / name).write_bytes(b"other")
        return manifest

    module = "runtime" if way == "here" else "checker"
    monkeypatch.setattr(f"rl100_policy_node.{module}.verify_manifest", verify_then_replace)
    with pytest.raises(ContractError, match=f"{name}: damaged or changed"):
        _load(way, folder, task, tmp_path / "target")


@pytest.mark.parametrize("way", ["here", "beside"])
def test_a_graph_that_is_replaced_after_its_checksum_was_taken_does_not_run(
    make_bundle: MakeBundle,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    folder, other = make_bundle(), (make_bundle("other", gain=0.5) / POLICY).read_bytes()
    wanted, real = load_manifest(folder).files[POLICY], hashlib.sha256

    class Replacing:
        """Replaces the file at once."""

        def __init__(self, data: bytes = b"") -> None:
            self._hash = real(data)
            self.update = self._hash.update

        def hexdigest(self) -> str:
            digest = self._hash.hexdigest()
            if digest == wanted:
                (folder / POLICY).write_bytes(other)
            return digest

    monkeypatch.setattr(hashlib, "sha256", Replacing)
    runtime, observation = _load(way, folder, task, tmp_path / "target"), flat_observation(task)
    assert (folder / POLICY).read_bytes() == other
    actions = runtime.one_step(observation, DecisionNoise(7).of(observation))
    noise = DecisionNoise(7).of(observation).standard_normal((1, 4, 2), dtype=np.float32)
    np.testing.assert_allclose(actions, 0.01 * noise[0], atol=1e-7)


def test_a_manifest_that_is_replaced_after_it_was_read_is_refused(
    make_bundle: MakeBundle, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = make_bundle(), tmp_path / "target"

    def verify_then_replace(*arguments: Any) -> Manifest:
        manifest = verify_manifest(*arguments)
        edit_manifest(folder, policy_version="other")
        return manifest

    monkeypatch.setattr("rl100_policy_node.checker.verify_manifest", verify_then_replace)
    with pytest.raises(ContractError, match="changed while it was checked"):
        _load("beside", folder, task, target)
