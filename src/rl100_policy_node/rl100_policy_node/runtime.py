"""Inference on a bundle: one step for deployment, the whole denoising chain for rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.bundle import DENOISER, POLICY, verify_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task
from rl100_policy_node.graphs import Graph, available_provider

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


def decision_rng(seed: int, observation: Observation) -> np.random.Generator:
    """Noise of one decision, a function of the seed and of every bit of the observation.

    So a run can be repeated exactly, in lockstep through ROS or in process, whatever order the
    episodes come in; and decisions on different observations have independent noise.
    """
    return np.random.Generator(np.random.Philox(key=[seed, observation.digest()]))


class PolicyRuntime:
    """A loaded and warmed-up bundle. Not thread-safe.

    Args:
        folder: the bundle.
        task: the running task; the bundle must be made for it.
        provider: ONNX Runtime execution provider, or "auto".
        threads: of the inference.

    Raises:
        ContractError: the bundle does not fit; one sentence that names the file.
    """

    def __init__(
        self, folder: Path, task: Task, *, provider: str = "auto", threads: int = 1
    ) -> None:
        self.folder = folder
        self.manifest = verify_bundle(folder, task)
        self.provider = available_provider(provider)
        m = self.manifest
        observation = {
            "state": (None, m.n_obs_steps, m.state_dim),
            "cloud": (None, m.n_obs_steps, m.num_points, 3),
            "noise": (None, m.horizon, m.action_dim),
        }
        action = {"action": (None, m.n_action_steps, m.action_dim)}
        steps, chunk = m.denoising_steps, (m.horizon, m.action_dim)
        self._policy = Graph(folder / POLICY, observation, action, self.provider, threads)
        self._denoiser = Graph(
            folder / DENOISER,
            {**observation, "step_noise": (steps, None, *chunk), "noise_scale": ()},
            {**action, "chain": (steps + 1, None, *chunk), "log_prob": (steps, None)},
            self.provider,
            threads,
        )
        self._warm_up(task)

    def _warm_up(self, task: Task) -> None:
        """Run both graphs on a plain observation: allocates memory and finds broken weights."""
        m = self.manifest
        low = np.asarray(task.camera.crop_low, dtype=np.float32)
        high = np.asarray(task.camera.crop_high, dtype=np.float32)
        spread = np.linspace(0.0, 1.0, m.num_points, dtype=np.float32)[:, None]
        cloud = np.broadcast_to(low + spread * (high - low), (m.n_obs_steps, m.num_points, 3))
        state = np.zeros((m.n_obs_steps, m.state_dim), dtype=np.float32)
        observation = Observation(0, state, np.ascontiguousarray(cloud))
        rng = np.random.default_rng(0)
        for _ in range(WARM_UP_RUNS):
            chain = self.k_step(observation, rng)
            outputs = [self.one_step(observation, rng), chain.actions, chain.chain, chain.log_prob]
        if not all(np.isfinite(output).all() for output in outputs):
            raise ContractError(f"{self.folder}: the policy gives values that are not finite")

    def _noise(self, rng: np.random.Generator) -> FloatArray:
        shape = (1, self.manifest.horizon, self.manifest.action_dim)
        return rng.standard_normal(shape, dtype=np.float32)

    def one_step(self, observation: Observation, rng: np.random.Generator) -> FloatArray:
        """Actions float32 (n_c, d), task units, from the consistency policy."""
        (action,) = self._policy.run(
            state=observation.state[None], cloud=observation.cloud[None], noise=self._noise(rng)
        )
        return np.asarray(action[0], dtype=np.float32)

    def k_step(
        self, observation: Observation, rng: np.random.Generator, *, stochastic: bool = False
    ) -> KStep:
        """Actions and chain of the diffusion policy; deterministic steps unless ``stochastic``."""
        m = self.manifest
        noise = self._noise(rng)
        shape = (m.denoising_steps, 1, m.horizon, m.action_dim)
        action, chain, log_prob = self._denoiser.run(
            state=observation.state[None],
            cloud=observation.cloud[None],
            noise=noise,
            step_noise=rng.standard_normal(shape, dtype=np.float32),
            noise_scale=np.array(1.0 if stochastic else 0.0, dtype=np.float32),
        )
        return KStep(action[0], chain[:, 0], log_prob[:, 0])
