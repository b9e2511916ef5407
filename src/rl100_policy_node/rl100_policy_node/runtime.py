"""Inference on a bundle: one step for deployment, the whole denoising chain for rollouts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rl100_contracts.bundle import (
    DENOISER,
    POLICY,
    SELFTEST,
    SELFTEST_LIMIT,
    Manifest,
    load_manifest,
    read_verified,
    verify_files,
    verify_manifest,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task
from rl100_policy_node.framewise import FramewiseGraph, prepared_parts, split
from rl100_policy_node.graphs import NOISE, Array, Graph, Model, Runnable, Shape, read_model
from rl100_policy_node.providers import CPU, choose_provider

FloatArray = NDArray[np.float32]

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class KStep:
    """One sampled denoising chain.

    Attributes:
        actions: float32 (n_c, d), task units.
        chain: float32 (K + 1, h, d), normalised.
        log_prob: float32 (K,), nats; meaningful when the chain was sampled with noise.
    """

    actions: FloatArray
    chain: FloatArray
    log_prob: FloatArray


class DecisionNoise:
    """Noise of each decision, a function of the seed and of every bit of the observation.

    So a run can be repeated exactly, in lockstep through ROS or in process, whatever order the
    episodes come in; and decisions on different observations have independent noise. Not
    thread-safe.

    Args:
        seed: of all decisions.
    """

    def __init__(self, seed: int) -> None:
        # Philox(key=[seed, digest]) each time would ask the system for entropy first and throw it
        # away: 0.1 ms where the caches are cold, as they are at control rate.
        self._bits = np.random.Philox(key=[seed, 0])
        self._generator = np.random.Generator(self._bits)
        self._fresh = self._bits.state
        self._key: NDArray[np.uint64] = np.array([seed, 0], dtype=np.uint64)
        self._fresh["state"]["key"] = self._key

    def of(self, observation: Observation) -> np.random.Generator:
        """The generator of one decision, valid until the next call."""
        self._key[1] = observation.digest()
        self._bits.state = self._fresh
        return self._generator


def observation_shapes(manifest: Manifest) -> dict[str, Shape]:
    """Inputs of both graphs that come from an observation, with the batch axis (None)."""
    return {name: (None, *shape) for name, shape in manifest.observation_shapes.items()}


class PolicyRuntime:
    """A loaded, tested and warmed-up bundle. Not thread-safe.

    The one-step policy encodes each frame of its observations once, where the bundle allows it.

    A provider that is missing, does not start, or does not give the trained policy's actions is
    replaced by the CPU; ``provider`` says which one runs, and why.

    Args:
        folder: the bundle.
        task: the running task; the bundle must be made for it.
        provider: see ``choose_provider``.
        threads: of the inference.
        chain: also load the K-step graph, which takes several times longer; see ``load_chain``.
        checked: folder with the checked copy that ``BundleChecker`` made of the bundle, to load
            quickly and without holding the interpreter lock, with pauses for the policy that runs
            beside it. Without it the bundle is checked here.

    Raises:
        ContractError: the bundle does not fit; one sentence that names the file.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        *,
        provider: str = "auto",
        threads: int = 1,
        chain: bool = True,
        checked: Path | None = None,
    ) -> None:
        self.folder = folder
        self._task, self._threads = task, threads
        self._denoiser: Graph | None = None
        read = [POLICY, DENOISER] if chain else [POLICY]
        self.manifest = load_manifest(checked) if checked else self._verified(read)
        self.self_tested = SELFTEST in self.manifest.files
        self.provider = choose_provider(provider)
        try:
            self._load(checked, chain)
        except ContractError as error:
            if self.provider.name == CPU:
                raise
            self.provider = self.provider.fallback(str(error))
            self._load(checked, chain)

    def _verified(self, read: Sequence[str]) -> Manifest:
        """The manifest, after all files were checked but those that are ``read`` checked."""
        manifest = verify_manifest(self.folder, self._task)
        verify_files(self.folder, manifest, manifest.files.keys() - {*read, SELFTEST})
        return manifest

    def _load(self, checked: Path | None, chain: bool) -> None:
        self._policy = self._one_step_graph(checked)
        if chain:
            self._denoiser = self._chain_graph(checked)

    @property
    def has_chain(self) -> bool:
        """Whether ``k_step`` can be called."""
        return self._denoiser is not None

    def load_chain(self, checked: Path | None = None) -> None:
        """Load the K-step graph as well; ``one_step`` may go on meanwhile in another thread.

        Raises:
            ContractError: it does not fit, or the bundle is not what it was.
        """
        now = load_manifest(checked) if checked else self._verified([DENOISER])
        if now != self.manifest:
            raise ContractError(f"{self.folder}: is another bundle than the one that was loaded")
        self._denoiser = self._chain_graph(checked)

    @property
    def _noise_shape(self) -> Shape:
        return (None, self.manifest.horizon, self.manifest.action_dim)

    @property
    def _action_shape(self) -> Shape:
        return (None, self.manifest.n_action_steps, self.manifest.action_dim)

    def _model(self, name: str, checked: Path | None) -> Model:
        if checked is not None:
            return Model.prepared(checked / name)
        return read_model(self.folder / name, read_verified(self.folder, self.manifest, name))

    def _one_step_graph(self, checked: Path | None) -> Runnable:
        model = self._model(POLICY, checked)
        frames = self.manifest.n_obs_steps
        parts = split(model, frames) if checked is None else prepared_parts(checked)
        observed = observation_shapes(self.manifest)
        graph: Runnable
        if parts is None:
            graph = self._graph(model, {}, {})
        else:
            noise, action = self._noise_shape, self._action_shape
            graph = FramewiseGraph(parts, observed, noise, action, self.provider, self._threads)
        self._prove(graph, "action", checked)
        return graph

    def _chain_graph(self, checked: Path | None) -> Graph:
        m = self.manifest
        inputs: dict[str, Shape] = {
            "step_noise": (m.denoising_steps, *self._noise_shape),
            "noise_scale": (),
        }
        outputs: dict[str, Shape] = {
            "chain": (m.denoising_steps + 1, *self._noise_shape),
            "log_prob": (m.denoising_steps, None),
        }
        graph = self._graph(self._model(DENOISER, checked), inputs, outputs)
        self._prove(graph, "chain_action", checked)
        return graph

    def _graph(
        self, model: Model, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
    ) -> Graph:
        """Load a whole graph, with ``inputs`` and ``outputs`` beyond the common ones."""
        return Graph(
            model,
            {**observation_shapes(self.manifest), NOISE: self._noise_shape, **inputs},
            {"action": self._action_shape, **outputs},
            self.provider,
            self._threads,
        )

    def _prove(self, graph: Runnable, action: str, checked: Path | None) -> None:
        """Warm up, and test against the actions that the trained policy gave at the export."""
        gently = checked is not None
        self._warm_up(graph, gently)
        if self.self_tested:
            samples = read_verified(checked or self.folder, self.manifest, SELFTEST)
            self._self_test(graph, samples, action, gently)

    @staticmethod
    def _breathe(begin: float, gently: bool) -> None:
        """Leave the processor to the running policy, half as long as a run took since ``begin``."""
        if gently:
            time.sleep(0.5 * (time.monotonic() - begin))

    def _warm_up(self, graph: Runnable, gently: bool) -> None:
        """Run on an empty scene: allocates memory and finds broken weights."""
        rng = np.random.default_rng(0)
        # A self-test runs it some more times.
        for _ in range(1 if self.self_tested else WARM_UP_RUNS):
            begin = time.monotonic()
            outputs = self._sample(graph, {}, rng, 1.0)
            if not all(np.isfinite(output).all() for output in outputs.values()):
                raise ContractError(f"{self.folder}: the policy gives values that are not finite")
            self._breathe(begin, gently)

    def _self_test(self, graph: Runnable, data: bytes, name: str, gently: bool) -> None:
        """Compare with the actions ``name`` that the trained policy gave at the export."""
        path = self.folder / SELFTEST
        try:
            samples = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise ContractError(f"{path}: not a readable self-test ({error})") from None
        missing = {*graph.inputs, name} - samples.keys()
        if missing or not len(samples[name]):
            raise ContractError(f"{path}: the self-test lacks '{min(missing, default=name)}'")
        sizes = {key: buffer.size for key, buffer in graph.inputs.items()}
        sizes[name] = graph.outputs["action"].size
        for key, size in sizes.items():
            if samples[key].size != len(samples[name]) * size:
                raise ContractError(f"{path}: '{key}' has the wrong shape")
        action = self._task.action
        action_range = np.subtract(action.high, action.low, dtype=np.float32)
        worst = 0.0
        for i, expected in enumerate(samples[name]):
            begin = time.monotonic()
            for key in graph.inputs:
                graph.fill(key, samples[key][i])
            gap = np.abs(graph.run()["action"][0] - expected) / action_range
            # NaN must not slip through a comparison.
            worst = max(worst, float(gap.max())) if np.isfinite(gap).all() else np.inf
            self._breathe(begin, gently)
        if worst > SELFTEST_LIMIT:
            raise ContractError(
                f"{self.folder}: self-test failed, its actions differ by {worst:.1e} of the action "
                f"range from the trained policy's (limit {SELFTEST_LIMIT:.0e})"
            )

    @staticmethod
    def _sample(
        graph: Runnable,
        tensors: Mapping[str, Array],
        rng: np.random.Generator,
        noise_scale: float,
    ) -> Mapping[str, Array]:
        """Run on one observation with new noise; the outputs last until the next run."""
        for name, tensor in tensors.items():
            graph.fill(name, tensor)
        rng.standard_normal(dtype=np.float32, out=graph.inputs[NOISE])
        if "step_noise" in graph.inputs:
            rng.standard_normal(dtype=np.float32, out=graph.inputs["step_noise"])
            graph.inputs["noise_scale"][...] = noise_scale
        return graph.run()

    def one_step(self, observation: Observation, rng: np.random.Generator) -> FloatArray:
        """Actions float32 (n_c, d), task units, from the consistency policy."""
        return self._sample(self._policy, observation.tensors(), rng, 0.0)["action"][0].copy()

    def k_step(
        self, observation: Observation, rng: np.random.Generator, *, stochastic: bool = False
    ) -> KStep:
        """Actions and chain of the diffusion policy; deterministic steps unless ``stochastic``."""
        assert self._denoiser is not None, "the chain is not loaded"
        scale = 1.0 if stochastic else 0.0
        out = self._sample(self._denoiser, observation.tensors(), rng, scale)
        return KStep(
            out["action"][0].copy(), out["chain"][:, 0].copy(), out["log_prob"][:, 0].copy()
        )
