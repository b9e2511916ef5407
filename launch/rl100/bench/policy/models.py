"""Ratios between runtimes on the same network: PyTorch eager, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rl100.bench.policy.bundles import (
    Network,
    consecutive_observations,
    eager_policy,
    random_observation,
    task_of,
)
from rl100_contracts.bundle import POLICY, load_manifest
from rl100_contracts.errors import ContractError

WARM_UP = 3
FAST_CALLS = 5  # of the faster side in each round
OPENVINO = "onnxruntime-openvino==1.24.1"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
WORKER = Path(__file__).with_name("openvino_worker.py")
PARITY_LIMIT = 1e-4  # of the action range; above it the provider does not compute in fp32


@dataclass(frozen=True)
class Pair:
    """Times of two ways to the same result, measured in turns, ms.

    ``read_ms``: of reading the weights once from memory, which a batch of one cannot do without.
    """

    slow_ms: list[float]
    fast_ms: list[float]
    read_ms: list[float] = field(default_factory=list)


def interleaved(
    slow: Callable[[], object],
    fast: Callable[[], object],
    rounds: int,
    step: Callable[[], None] = lambda: None,
    read: Callable[[], object] | None = None,
) -> Pair:
    """Time both in turns (one slow call, some fast ones), so that other load hits both alike."""
    for _ in range(WARM_UP):
        fast()
    slow()
    pair = Pair([], [])
    calls = [(slow, pair.slow_ms, 1), (fast, pair.fast_ms, FAST_CALLS)]
    if read is not None:
        calls.append((read, pair.read_ms, FAST_CALLS))
    for _ in range(rounds):
        for call, times, repeats in calls:
            for _ in range(repeats):
                begin = time.perf_counter()
                call()
                times.append((time.perf_counter() - begin) * 1e3)
        step()
    return pair


def ddim_against_one_step(
    network: Network, bundle: Path, rounds: int, step: Callable[[], None] = lambda: None
) -> Pair:
    """10-step DDIM in eager PyTorch against the policy node's one-step inference, one thread."""
    import torch

    from rl100_policy_node.runtime import PolicyRuntime

    torch.set_num_threads(1)
    task = task_of(network)
    policy = eager_policy(network, bundle)
    runtime = PolicyRuntime(bundle, task, provider="auto", threads=1)
    draw = np.random.default_rng(1)
    # In turns, because the runtime does not encode again what it has seen last.
    observations = itertools.cycle([random_observation(task, draw) for _ in range(2)])
    seen = next(observations).tensors()
    state, cloud = (torch.from_numpy(seen[name][None]) for name in ("state", "cloud"))
    noise = torch.randn((1, policy.horizon, task.action.dim))

    @torch.inference_mode()
    def eager() -> object:
        condition = policy.condition(state, cloud)
        sample = noise
        for k in range(policy.schedule.steps):
            output = policy.denoise(sample, k, condition)
            sample = policy.schedule.mean(output, sample, k, 0.0)
        return policy.executed(sample)

    rng = np.random.default_rng(2)
    # The largest of many numbers is found as fast as they come from memory, in one thread.
    weights = np.ones((bundle / POLICY).stat().st_size // 4, dtype=np.float32)
    return interleaved(
        eager, lambda: runtime.one_step(next(observations), rng), rounds, step, read=weights.max
    )


def bare_model_ms(network: Network, bundle: Path, count: int, period_s: float) -> list[float]:
    """One-step inference alone, as often as a control loop does it, ms.

    Paced, because between two decisions the caches of a core get cold; and on observations that
    follow each other, because a frame that was in the last one is not encoded again.
    """
    from rl100_policy_node.runtime import PolicyRuntime

    task = task_of(network)
    runtime = PolicyRuntime(bundle, task, provider="auto", threads=1)
    rng = np.random.default_rng(3)
    observations = consecutive_observations(task, rng, 8)
    times: list[float] = []
    due = time.monotonic()
    for index in range(count):
        due += period_s
        time.sleep(max(due - time.monotonic(), 0.0))
        begin = time.perf_counter()
        runtime.one_step(observations[index % 8], rng)
        times.append((time.perf_counter() - begin) * 1e3)
    return times


# --- OpenVINO


def openvino_python(folder: Path | None) -> Path | None:
    """An interpreter whose ONNX Runtime has OpenVINO; None: there is none.

    ``onnxruntime-openvino`` replaces ``onnxruntime``, so it lives in an environment of its own,
    which is made in ``folder`` when there is none yet.

    Raises:
        ContractError: it cannot be made.
    """
    if folder is None:
        import onnxruntime

        here = OPENVINO_PROVIDER in onnxruntime.get_available_providers()
        return Path(sys.executable) if here else None
    python = folder.absolute() / "bin" / "python"
    if not python.is_file():
        try:
            venv.create(folder, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ContractError(f"{folder}: no virtual environment can be made ({error})") from None
    if _has_openvino(python):
        return python
    command = [str(python), "-m", "pip", "install", "--quiet", OPENVINO, "numpy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not _has_openvino(python):
        said = (done.stderr.strip().splitlines() or ["it has no such provider"])[-1]
        raise ContractError(f"{folder}: {OPENVINO} cannot be used ({said})")
    return python


def _has_openvino(python: Path) -> bool:
    code = f"import onnxruntime as o; assert '{OPENVINO_PROVIDER}' in o.get_available_providers()"
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


@dataclass(frozen=True)
class OpenVino:
    """``pair``: the CPU provider and OpenVINO; ``error``: largest gap, part of the action range."""

    pair: Pair
    error: float
    version: str


def cpu_against_openvino(python: Path, network: Network, bundle: Path, rounds: int) -> OpenVino:
    """ONNX Runtime's CPU provider against its OpenVINO provider (fp32, one thread), in turns.

    Raises:
        ContractError: OpenVINO cannot run the network.
    """
    task = task_of(network)
    observation = random_observation(task, np.random.default_rng(1))
    noise_shape = (1, load_manifest(bundle).horizon, task.action.dim)
    noise = np.random.default_rng(2).standard_normal(noise_shape)
    with tempfile.TemporaryDirectory(prefix="rl100-openvino-") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(
            inputs,
            noise=noise.astype(np.float32),
            **{name: tensor[None] for name, tensor in observation.tensors().items()},  # type: ignore[arg-type]
        )
        command: Sequence[str] = (
            str(python),
            str(WORKER),
            str(bundle / POLICY),
            str(inputs),
            str(rounds),
        )
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ContractError(f"OpenVINO cannot run {bundle / POLICY}: {said}")
    result = json.loads(done.stdout.splitlines()[-1])
    span = float(np.min(np.subtract(task.action.high, task.action.low)))
    pair = Pair(result["cpu_ms"], result["openvino_ms"])
    return OpenVino(pair, result["error"] / span, result["version"])
