"""Success of a policy: through the ROS graph (what is deployed) or in process (quick)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl100.session import EpisodeResult, Session
from rl100.statistics import wilson_interval
from rl100_contracts.task import Task

OnResult = Callable[[EpisodeResult], None]


@dataclass(frozen=True)
class Evaluation:
    """Outcome of an evaluation.

    Attributes:
        name: what was evaluated, e.g. "one_step".
        policy_version: bundle version.
        results: one for each episode.
        inference_p50_ms: median model time, ms; None when not measured.
        inference_p99_ms: 99th percentile, ms.
    """

    name: str
    policy_version: str
    results: Sequence[EpisodeResult]
    inference_p50_ms: float | None = None
    inference_p99_ms: float | None = None

    @property
    def successes(self) -> int:
        """Number of solved episodes."""
        return sum(result.success for result in self.results)

    @property
    def success_rate(self) -> float:
        """Fraction of solved episodes."""
        return self.successes / len(self.results)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.successes, len(self.results))

    @property
    def mean_steps(self) -> float:
        """Mean control steps of the solved episodes; NaN when none was solved."""
        steps = [result.steps for result in self.results if result.success]
        return float(np.mean(steps)) if steps else float("nan")

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        low, high = self.interval
        return {
            "name": self.name,
            "policy_version": self.policy_version,
            "episodes": len(self.results),
            "successes": self.successes,
            "success_rate": self.success_rate,
            "low": low,
            "high": high,
            "inference_p50_ms": self.inference_p50_ms,
            "inference_p99_ms": self.inference_p99_ms,
            "results": [asdict(result) for result in self.results],
        }


def evaluate_ros(
    session: Session,
    sampler: str,
    seeds: Sequence[int],
    *,
    stochastic: bool = False,
    record_first: int = 0,
    on_result: OnResult = lambda _: None,
) -> Evaluation:
    """Evaluate the policy that the running policy node has loaded.

    Args:
        session: connected to a running simulated system.
        sampler: "one_step" or "k_step".
        seeds: one start state each.
        stochastic: sample the chain's noise (rollouts) instead of the deterministic chain.
        record_first: how many of the first episodes are recorded.
        on_result: called after each episode.

    Raises:
        ContractError: a node refuses or has died.
    """
    session.set_parameters("rl100_policy", sampler=sampler, stochastic=stochastic)
    session.set_mode("policy")
    first = session.run_episodes(seeds[:record_first], record=True, on_result=on_result)
    rest = session.run_episodes(seeds[record_first:], on_result=on_result)
    session.policy_status = None
    session.spin_until(
        lambda: session.policy_status is not None and session.policy_status.sampler == sampler,
        10.0,
        "policy status",
    )
    status = session.policy_status
    assert status is not None
    return Evaluation(
        sampler,
        status.policy_version,
        [*first, *rest],
        float(status.inference_p50_ms),
        float(status.inference_p99_ms),
    )


def evaluate_direct(
    bundle: Path,
    task: Task,
    sampler: str,
    seeds: Sequence[int],
    *,
    noise_seed: int = 0,
    stochastic: bool = False,
    on_result: OnResult = lambda _: None,
) -> Evaluation:
    """Evaluate a bundle in process, with the same cores as the ROS graph.

    Raises:
        ContractError: the bundle does not fit.
    """
    from rl100.direct_env import DirectEnv
    from rl100_policy_node.runtime import DecisionNoise, PolicyRuntime

    runtime = PolicyRuntime(bundle, task)
    env, noise = DirectEnv(task), DecisionNoise(noise_seed)
    results, times = [], []
    for seed in seeds:
        started = time.monotonic()
        observation, finished, steps = env.reset(seed), False, 0
        success = False
        while not finished:
            rng = noise.of(observation)
            begin = time.perf_counter()
            if sampler == "one_step":
                actions = runtime.one_step(observation, rng)
            else:
                actions = runtime.k_step(observation, rng, stochastic=stochastic).actions
            times.append((time.perf_counter() - begin) * 1e3)
            for action in actions:
                step, steps = env.step(action), steps + 1
                success, finished = step.terminated, step.terminated or step.truncated
                if finished:
                    break
            observation = env.observe()
        result = EpisodeResult(seed, success, steps, time.monotonic() - started)
        results.append(result)
        on_result(result)
    p50, p99 = np.percentile(times, [50, 99])
    return Evaluation(sampler, runtime.manifest.policy_version, results, float(p50), float(p99))
