"""When to decide, on what, and which chunk comes out of it. No ROS in here."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.observation import BREAK_PERIODS, ObservationAssembler
from rl100_contracts.task import NANOSECONDS, Task
from rl100_policy_node.runtime import KStep, PolicyRuntime, decision_rng

Sampler = Literal["one_step", "k_step"]
WINDOW = 1000
RESTART_NS = NANOSECONDS


@dataclass(frozen=True)
class Decision:
    """One decision: the chunk, and the chain that it came from (K-step only)."""

    chunk: Chunk
    chain: KStep | None


@dataclass(frozen=True)
class Latency:
    """Model time over the last decisions, ms; zeros before the first."""

    p50_ms: float
    p99_ms: float


class PolicyCore:
    """Collects samples and makes decisions.

    A decision is due at the first complete frame, and again when the planned actions run out: in
    lockstep exactly then, in real time so much earlier that the new chunk arrives in time. After a
    break in the stamps (a reset, a camera that was away) it starts afresh.

    Args:
        task: the contract.
        lockstep: the world waits, so decisions need no lead.
        seed: of the policy's noise.
        source: name that the chunks carry.
    """

    def __init__(self, task: Task, *, lockstep: bool, seed: int = 0, source: str = "policy"):
        self.task = task
        self.assembler = ObservationAssembler(task)
        self.sampler: Sampler = "one_step"
        self.stochastic = False
        self.runtime: PolicyRuntime | None = None
        self.inferences = 0
        self.overruns = 0
        self._lockstep = lockstep
        self._seed = seed
        self._source = source
        self._sequence = 0
        self._planned_until_ns: int | None = None
        self._last_frame_ns = 0
        self._newest_ns: dict[str, int] = {}
        self._model_ms: deque[float] = deque(maxlen=WINDOW)
        self._delays_ns: deque[int] = deque(maxlen=50)

    def use(self, runtime: PolicyRuntime) -> None:
        """Decide with this bundle from the next decision on."""
        self.runtime = runtime
        self.reset_statistics()

    def reset_statistics(self) -> None:
        """Start the figures afresh."""
        self.inferences = self.overruns = 0
        self._model_ms.clear()

    def set_sampler(self, sampler: Sampler, stochastic: bool) -> None:
        """Choose between the one-step policy and the denoising chain."""
        self.sampler, self.stochastic = sampler, stochastic
        self.reset_statistics()

    def reset(self, after_ns: int) -> None:
        """A new episode starts: forget what is older than its start."""
        self.assembler.reset(after_ns)
        self._planned_until_ns = None

    def add(self, stream: str, stamp_ns: int, value: NDArray[np.float32]) -> None:
        """Add a decoded sample; raises ObservationError when it does not fit.

        A stream that goes back in time by more than a second belongs to a clock (a simulator's)
        that started again: what was known before is forgotten.
        """
        newest = self._newest_ns.get(stream)
        if newest is not None and stamp_ns < newest - RESTART_NS:
            self.assembler.clear()
            self._newest_ns.clear()
            self._planned_until_ns, self._last_frame_ns = None, 0
        self._newest_ns[stream] = stamp_ns
        self.assembler.add(stream, stamp_ns, value)

    def lead_ns(self) -> int:
        """How long before the planned actions run out the next decision is made, ns."""
        if self._lockstep or not self._delays_ns:
            return 0
        period = self.task.control.period_ns
        periods = math.ceil(float(np.percentile(list(self._delays_ns), 95)) / period)
        return min(periods, self.task.control.n_action_steps - 1) * period

    def due(self) -> int | None:
        """Stamp of the frame that a decision is due for, ns, or None."""
        frame_ns = self.assembler.latest_complete()
        if frame_ns is None or frame_ns <= self._last_frame_ns:
            return None
        if frame_ns - self._last_frame_ns > BREAK_PERIODS * self.task.control.period_ns:
            self._planned_until_ns = None  # what was planned before a break is not for now
        self._last_frame_ns = frame_ns
        if self.runtime is None:
            return None
        planned = self._planned_until_ns
        slack = self.task.control.period_ns // 4
        if planned is not None and frame_ns < planned - self.lead_ns() - slack:
            return None
        return frame_ns

    def decide(self, frame_ns: int, now: Callable[[], int]) -> Decision:
        """Decide on the observation at ``frame_ns``.

        Args:
            frame_ns: what ``due`` gave.
            now: the clock of the stamps, ns; asked after the inference to measure delay.

        Raises:
            ObservationError: the observation cannot be assembled (proprioception too old).
        """
        runtime = self.runtime
        assert runtime is not None, "due() gives nothing without a bundle"
        observation = self.assembler.observe(frame_ns)
        rng = decision_rng(self._seed, observation)
        begin = time.perf_counter()
        chain: KStep | None = None
        if self.sampler == "one_step":
            actions = runtime.one_step(observation, rng)
        else:
            chain = runtime.k_step(observation, rng, stochastic=self.stochastic)
            actions = chain.actions
        self._model_ms.append((time.perf_counter() - begin) * 1e3)
        chunk = self._chunk(frame_ns, actions, observation.digest(), runtime)
        self.inferences += 1
        if not self._lockstep:
            delay = max(now() - frame_ns, 0)
            self._delays_ns.append(delay)
            self.overruns += delay > self.task.control.period_ns
        return Decision(chunk, chain)

    def _chunk(
        self, frame_ns: int, actions: NDArray[np.float32], digest: int, runtime: PolicyRuntime
    ) -> Chunk:
        period, count = self.task.control.period_ns, len(actions)
        # An action has its effect when it is due, so it is sent earlier by the known delay.
        first_ns = frame_ns - round(self.task.latency.action_s * NANOSECONDS)
        stamps = first_ns + period * np.arange(count, dtype=np.int64)
        life_ns = round(self.task.safety.chunk_timeout_s * NANOSECONDS)
        self._sequence += 1
        self._planned_until_ns = frame_ns + count * period
        return Chunk(
            self._sequence,
            self._source,
            runtime.manifest.policy_version,
            frame_ns,
            stamps,
            actions,
            int(stamps[-1]) + life_ns,
            digest,
        )

    def latency(self) -> Latency:
        """Model time over the last 1000 decisions."""
        if not self._model_ms:
            return Latency(0.0, 0.0)
        p50, p99 = np.percentile(list(self._model_ms), [50, 99])
        return Latency(float(p50), float(p99))
