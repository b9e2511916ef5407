"""When to decide, on what, and which chunk comes out of it. No ROS in here.

Two threads meet here. One hands in messages (``add``), the other decides (``take``, ``decide``,
``publish``); in lockstep they are the same. Whatever both touch, the history of observations above
all, is in ``PolicyCore`` under one lock that is never held during an inference.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.decode import Sample
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import BREAK_PERIODS, Observation, ObservationAssembler
from rl100_contracts.task import NANOSECONDS, Task
from rl100_policy_node.deadlines import Deadlines
from rl100_policy_node.runtime import DecisionNoise, KStep, PolicyRuntime
from rl100_policy_node.statistics import Statistics
from rl100_policy_node.supply import Supply

Sampler = Literal["one_step", "k_step"]
RESTART_NS = NANOSECONDS
DELAYS = 50
# Of a period, added to a decision's delay: the way to the gateway, and what its tick needs.
ON_THE_WAY = 0.25


@dataclass(frozen=True)
class Due:
    """A decision that is to be made now, and all that it depends on.

    Attributes:
        frame_ns: stamp of its observation.
        observation: the tensors.
        runtime: the bundle that decides.
        sampler: one step, or the whole chain.
        stochastic: the chain is sampled with noise.
        complete_ns: when its last message was taken, ns of the monotonic clock.
        epoch: of the history that it was assembled from.
    """

    frame_ns: int
    observation: Observation
    runtime: PolicyRuntime
    sampler: Sampler
    stochastic: bool
    complete_ns: int
    epoch: int


@dataclass(frozen=True)
class Decision:
    """One decision: what it came from, the chunk, and the chain (K-step only)."""

    due: Due
    chunk: Chunk
    chain: KStep | None
    model_ms: float


class PolicyCore:
    """Collects samples and makes decisions.

    A decision is due at the first complete frame, and again when the planned actions run out: in
    lockstep exactly then, in real time so much earlier that the new chunk arrives in time. After a
    break in the stamps (a reset, a camera that was away) it starts afresh.

    Args:
        task: the contract.
        lockstep: the world waits, so each due frame gets its decision and none needs a lead.
        seed: of the policy's noise.
        source: name that the chunks carry.
        wall: clock of the stamps, ns.
        monotonic: clock that never jumps, ns.
    """

    def __init__(
        self,
        task: Task,
        *,
        lockstep: bool,
        seed: int = 0,
        source: str = "policy",
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.task = task
        self.assembler = ObservationAssembler(task)
        self.sampler: Sampler = "one_step"
        self.stochastic = False
        self.runtime: PolicyRuntime | None = None
        self.previous: PolicyRuntime | None = None
        self.active = False
        self.statistics = Statistics()
        self.supply = Supply(task, wall, monotonic)
        self._deadlines = Deadlines(task)
        self._lock = threading.Lock()
        self._lockstep = lockstep
        self._noise = DecisionNoise(seed)
        self._source = source
        self._wall, self._monotonic = wall, monotonic
        self._sequence = self._epoch = 0
        self._planned_until_ns: int | None = None
        self._last_frame_ns = self._complete_ns = 0
        self._pending = False
        self._queue: deque[Due] = deque()
        self._deciding_since: int | None = None
        self._delays_ns: deque[int] = deque(maxlen=DELAYS)
        self._lead_ns = 0
        self._early_ns = round(task.latency.action_s * NANOSECONDS)
        self._retired: list[PolicyRuntime] = []

    # --- bundles and settings

    def use(self, runtime: PolicyRuntime) -> None:
        """Decide with this bundle from the next decision on; the present one can be gone back to.

        A decision that is being made ends with the bundle that it began with. Giving ``previous``
        goes back. With the sampler ``k_step`` the bundle must have its chain loaded.
        """
        with self._lock:
            # Freeing hundreds of megabytes takes a while: `publish` does it when there is time.
            # Where nothing is published, this thread frees the one before, after the lock.
            retired = self._retired
            if self.previous is not None and self.previous is not runtime:
                self._retired = [self.previous]
            self.previous, self.runtime = self.runtime, runtime
            self.statistics.reset()
        del retired

    def set_sampler(self, sampler: Sampler, stochastic: bool) -> None:
        """Choose between the one-step policy and the denoising chain, from the next decision on."""
        with self._lock:
            self.sampler, self.stochastic = sampler, stochastic
            self.statistics.reset()

    # --- what comes in

    def activate(self, active: bool) -> None:
        """Begin to decide, afresh, or stop it; samples are collected in any case."""
        with self._lock:
            self.active = active
            self._start_afresh()

    def reset(self, after_ns: int) -> None:
        """A new episode starts: forget what is older than its start, decisions under way too."""
        with self._lock:
            self.assembler.reset(after_ns)
            self._start_afresh()

    def _start_afresh(self) -> None:
        """Nothing that was planned, or is being decided, is for what comes now."""
        self._planned_until_ns = None
        self._pending = False
        self._queue.clear()
        self._epoch += 1
        self._deadlines.forget()

    def _forget(self) -> None:
        """What was known before belongs to another time base."""
        self.assembler.clear()
        self.supply.forget()
        self._last_frame_ns = 0
        self._delays_ns.clear()
        self._lead_ns = 0
        self._start_afresh()

    def add(self, stream: str, stamp_ns: int, value: Sample) -> bool:
        """Add a decoded sample; True when a decision is due.

        A stream that goes back in time by more than a second belongs to a clock (a simulator's)
        that started again, and a system clock that was set makes stamps incomparable: what was
        known before is forgotten.

        Raises:
            ObservationError: the sample does not fit; in lockstep also: no observation can be
                assembled (proprioception too old).
        """
        with self._lock:
            newest = self.supply.newest_ns(stream)
            jumped = not self._lockstep and self.supply.clock_jumped()
            if jumped or (newest is not None and stamp_ns < newest - RESTART_NS):
                self._forget()
            self.assembler.add(stream, stamp_ns, value)
            self.supply.arrived(stream, stamp_ns)
            frame_ns = self._due()
            if frame_ns is None:
                return self._pending
            if self._lockstep:
                self._queue.append(self._assemble(frame_ns))
            self._pending = True
            return True

    def lead_ns(self) -> int:
        """How long before the planned actions run out the next decision is made, ns."""
        return self._lead_ns

    def _set_lead(self, delay_ns: int) -> None:
        """A decision was out ``delay_ns`` after the stamp of its observation.

        Actions are sent earlier by the robot's latency, so a plan ends earlier by it too.
        """
        self._delays_ns.append(delay_ns)
        period, ordered = self.task.control.period_ns, sorted(self._delays_ns)
        late = ordered[math.ceil(0.95 * len(ordered)) - 1]
        periods = math.ceil((late + self._early_ns) / period + ON_THE_WAY)
        self._lead_ns = min(periods, self.task.control.n_action_steps - 1) * period

    def _due(self) -> int | None:
        """Stamp of the frame that a decision is due for, ns, or None. Sees each frame once."""
        frame_ns = self.assembler.latest_complete()
        if frame_ns is None or frame_ns <= self._last_frame_ns:
            return None
        self._complete_ns = self.supply.complete(frame_ns)
        if frame_ns - self._last_frame_ns > BREAK_PERIODS * self.task.control.period_ns:
            self._planned_until_ns = None  # what was planned before a break is not for now
            self._deadlines.forget()
        self._last_frame_ns = frame_ns
        if self.runtime is None or not self.active:
            return None
        planned = self._planned_until_ns
        slack = self.task.control.period_ns // 4
        if planned is not None and frame_ns < planned - self._lead_ns - slack:
            return None
        return frame_ns

    # --- what comes out

    def take(self) -> Due | None:
        """The decision to make now, or None: in lockstep the oldest, else on the newest frame.

        Raises:
            ObservationError: the observation cannot be assembled (proprioception too old).
        """
        with self._lock:
            if self._lockstep:
                due = self._queue.popleft() if self._queue else None
                self._pending = bool(self._queue)
                return due
            if not self._pending:
                return None
            self._pending = False
            return self._assemble(self._last_frame_ns)

    def _assemble(self, frame_ns: int) -> Due:
        assert self.runtime is not None, "nothing is due without a bundle"
        observation = self.assembler.observe(frame_ns)
        manifest = self.runtime.manifest
        self._planned_until_ns = frame_ns + manifest.n_action_steps * self.task.control.period_ns
        return Due(
            frame_ns,
            observation,
            self.runtime,
            self.sampler,
            self.stochastic,
            self._complete_ns,
            self._epoch,
        )

    def decide(self, due: Due) -> Decision:
        """Make a decision.

        Raises:
            ContractError: the inference fails, or gives a value that is not finite.
        """
        self._deciding_since = self._monotonic()
        try:
            rng = self._noise.of(due.observation)
            begin = time.perf_counter()
            chain: KStep | None = None
            if due.sampler == "one_step":
                actions = due.runtime.one_step(due.observation, rng)
            else:
                chain = due.runtime.k_step(due.observation, rng, stochastic=due.stochastic)
                actions = chain.actions
            model_ms = (time.perf_counter() - begin) * 1e3
        finally:
            self._deciding_since = None
        if not np.isfinite(actions).all():
            raise ContractError(f"{due.runtime.folder}: the policy gave a value that is not finite")
        return Decision(due, self._chunk(due, actions), chain, model_ms)

    def publish(self, decision: Decision, send: Callable[[Decision], object]) -> bool:
        """Send a decision, unless a reset has made it one of the past; True when it was sent."""
        due = decision.due
        if due.epoch != self._epoch:
            return False
        send(decision)
        late = False
        if not self._lockstep:
            delay = max(self._wall() - due.frame_ns, 0)
            late = delay > self.task.control.period_ns
        now = self._monotonic()
        self.statistics.add(
            decision.chunk.policy_version,
            decision.model_ms,
            (now - due.complete_ns) * 1e-6,
            late,
        )
        if not self._lockstep:
            with self._lock:
                self._set_lead(delay)
                self._settle(due, now)
        retired, self._retired = self._retired, []
        del retired
        return True

    def _settle(self, due: Due, now: int) -> None:
        self.statistics.missed += self._deadlines.passed(now)
        if due.epoch == self._epoch and self._planned_until_ns is not None:
            lead = self._lead_ns
            frame = self.supply.expected_ns(self._planned_until_ns - lead)
            self._deadlines.set(frame + max(lead - self._early_ns, self.task.control.period_ns))

    def check_deadline(self) -> None:
        """Count the deadline that has passed without a decision, if any; called now and then."""
        with self._lock:
            now = self._monotonic()
            self.statistics.missed += self._deadlines.passed(now)
            if self.supply.dry():
                self._deadlines.forget()

    def _chunk(self, due: Due, actions: NDArray[np.float32]) -> Chunk:
        period, count = self.task.control.period_ns, len(actions)
        # An action has its effect when it is due, so it is sent earlier by the known delay.
        first_ns = due.frame_ns - self._early_ns
        stamps = first_ns + period * np.arange(count, dtype=np.int64)
        life_ns = round(self.task.safety.chunk_timeout_s * NANOSECONDS)
        self._sequence += 1
        return Chunk(
            self._sequence,
            self._source,
            due.runtime.manifest.policy_version,
            due.frame_ns,
            stamps,
            actions,
            int(stamps[-1]) + life_ns,
            due.observation.digest(),
        )

    # --- what to say

    def waiting_for(self) -> str:
        """One sentence on what keeps the policy from deciding; empty when nothing does."""
        if self.runtime is None:
            return "no bundle is loaded: load one (rl100 load BUNDLE_DIR)"
        with self._lock:
            waiting = self.assembler.waiting_for()
            if waiting or self._lockstep:
                return waiting
            return self.supply.waiting_for()

    def too_slow(self) -> bool:
        """Whether a decision takes longer than its chunk lasts, so that no action is in time."""
        if self._lockstep:
            return False
        limit = self.task.control.n_action_steps * self.task.control.period_ns
        since = self._deciding_since
        if since is not None and self._monotonic() - since > limit:
            return True
        return bool(self._delays_ns) and self._delays_ns[-1] > limit

    def observation_age_s(self) -> float:
        """Age of the newest complete observation by its stamp, s; 0 in lockstep or before any."""
        with self._lock:
            newest = self.assembler.latest_complete()
        if newest is None or self._lockstep:
            return 0.0
        return max((self._wall() - newest) * 1e-9, 0.0)
