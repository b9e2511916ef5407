"""Decisions are made on stamps: at the first frame, when the plan runs out, and after a break.

Pins: decision times in lockstep and the lead in real time; chunk stamps, expiry, sequence and
digest; a reset starts afresh; stale proprioception gives an error and no chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rl100_contracts.chunks import Chunk, check_chunk
from rl100_contracts.observation import ObservationAssembler, ObservationError
from rl100_contracts.task import Task
from rl100_policy_node.core import PolicyCore
from rl100_policy_node.runtime import PolicyRuntime

START = 10**9


def _feed(core: PolicyCore | ObservationAssembler, task: Task, stamp: int) -> None:
    points = task.observation.cloud.num_points
    core.add("joint_states", stamp, np.full(2, stamp * 1e-10, np.float32))
    core.add("tool_pose", stamp, np.full(2, 0.1, np.float32))
    core.add("points", stamp, np.full((points, 3), stamp * 1e-10, np.float32))


def _run(core: PolicyCore, task: Task, stamps: list[int], delay_ns: int = 0) -> list[Chunk]:
    chunks = []
    for stamp in stamps:
        _feed(core, task, stamp)
        frame = core.due()
        if frame is not None:
            chunks.append(core.decide(frame, lambda now=stamp + delay_ns: now).chunk)
    return chunks


@pytest.fixture
def core(make_bundle: Callable[..., Path], task: Task) -> PolicyCore:
    core = PolicyCore(task, lockstep=True)
    core.use(PolicyRuntime(make_bundle(), task))
    return core


def test_lockstep_decides_exactly_at_chunk_boundaries(core: PolicyCore, task: Task) -> None:
    period = task.control.period_ns
    stamps = [START + i * period for i in range(13)]
    chunks = _run(core, task, stamps)
    assert [c.observation_ns for c in chunks] == [stamps[i] for i in (0, 4, 8, 12)]
    assert [c.sequence for c in chunks] == [1, 2, 3, 4]
    for chunk in chunks:
        check_chunk(chunk, task)
        assert list(chunk.stamps_ns - chunk.observation_ns) == [i * period for i in range(4)]
        assert chunk.expires_ns == chunk.stamps_ns[-1] + 500_000_000
        assert chunk.policy_version == "test-1"


def test_digest_is_that_of_the_observation(core: PolicyCore, task: Task) -> None:
    stamps = [START + i * task.control.period_ns for i in range(9)]
    bag = ObservationAssembler(task, keep_s=None)
    for stamp in stamps:
        _feed(bag, task, stamp)
    for chunk in _run(core, task, stamps):
        assert chunk.observation_digest == bag.observe(chunk.observation_ns).digest() != 0


def test_a_break_in_time_starts_afresh(core: PolicyCore, task: Task) -> None:
    period = task.control.period_ns
    _run(core, task, [START, START + period])
    later = START + 40 * period
    assert [c.observation_ns for c in _run(core, task, [later])] == [later]


def test_a_break_within_a_plan_starts_afresh(
    core: PolicyCore, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl100_policy_node.core.BREAK_PERIODS", 2)
    period = task.control.period_ns
    stamps = [START, START + 3 * period]  # the plan lasts for four periods
    assert [c.observation_ns for c in _run(core, task, stamps)] == stamps


def test_a_clock_that_starts_again_is_followed(core: PolicyCore, task: Task) -> None:
    _run(core, task, [START * 50])
    assert [c.observation_ns for c in _run(core, task, [START])] == [START]


def test_reset_starts_afresh_within_a_plan(core: PolicyCore, task: Task) -> None:
    period = task.control.period_ns
    _run(core, task, [START])
    core.reset(START + period)
    assert [c.observation_ns for c in _run(core, task, [START + period])] == [START + period]


def test_real_time_decides_early_enough(make_bundle: Callable[..., Path], task: Task) -> None:
    core = PolicyCore(task, lockstep=False)
    core.use(PolicyRuntime(make_bundle(), task))
    period = task.control.period_ns
    stamps = [START + i * period for i in range(12)]
    chunks = _run(core, task, stamps, delay_ns=period + period // 2)
    assert core.lead_ns() == 2 * period
    assert [(c.observation_ns - START) // period for c in chunks] == [0, 2, 4, 6, 8, 10]
    assert core.overruns == len(chunks)


def test_nothing_without_a_bundle(task: Task) -> None:
    core = PolicyCore(task, lockstep=True)
    _feed(core, task, START)
    assert core.due() is None


def test_stale_proprioception_gives_an_error(core: PolicyCore, task: Task) -> None:
    core.add("joint_states", START, np.zeros(2, np.float32))
    core.add("tool_pose", START, np.zeros(2, np.float32))
    late = START + 4 * task.control.period_ns
    core.add("points", late, np.zeros((task.observation.cloud.num_points, 3), np.float32))
    assert core.due() is None
    core.add("joint_states", late, np.zeros(2, np.float32))
    core.add("tool_pose", late + 1, np.zeros(2, np.float32))
    frame = core.due()
    assert frame == late
    with pytest.raises(ObservationError, match="older than the cloud"):
        core.decide(frame, lambda: late)


def test_sampler_change_restarts_the_figures(core: PolicyCore, task: Task) -> None:
    _run(core, task, [START])
    assert core.latency().p50_ms > 0 and core.inferences == 1
    core.set_sampler("k_step", True)
    assert core.latency().p50_ms == 0 and core.inferences == 0
    _feed(core, task, START + 4 * task.control.period_ns)
    decision = core.decide(START + 4 * task.control.period_ns, lambda: 0)
    assert decision.chain is not None and decision.chain.chain.shape == (4, 4, 2)
