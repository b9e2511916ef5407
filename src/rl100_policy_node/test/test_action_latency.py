"""Latency of the robot: an action is sent so much earlier that it has its effect when it is due.

Pins: ``latency.action_s`` moves the stamps of a chunk's actions, and with them its end, and nothing
else of it: not the observation, not the actions. In real time the next chunk comes before the plan,
which ends so much earlier, has run out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rl100_contracts.chunks import Chunk, check_chunk
from rl100_contracts.task import Task
from rl100_policy_node.core import PolicyCore
from rl100_policy_node.runtime import PolicyRuntime

START = 10**13
# Less than a period of this task, a whole number of them and not, and more than a whole chunk.
LATENCIES_S = [0.012, 0.05, 0.1, 0.1234, 0.5]


@pytest.fixture
def slow(task: Task, request: pytest.FixtureRequest) -> Task:
    """The task with a latency of so many seconds."""
    values = task.model_dump(mode="json")
    return Task.model_validate({**values, "latency": {"action_s": request.param}})


def feed(core: PolicyCore, task: Task, stamp: int) -> None:
    core.add("joint_states", stamp, np.full(2, 0.1, np.float32))
    core.add("tool_pose", stamp, np.full(2, 0.1, np.float32))
    core.add("points", stamp, np.zeros((task.observation.num_points, 3), np.float32))


def chunks_of(task: Task, bundle: Path, frames: int) -> list[Chunk]:
    """Every chunk in lockstep, of frames of one control period."""
    core = PolicyCore(task, lockstep=True)
    core.use(PolicyRuntime(bundle, task))
    core.activate(True)
    chunks: list[Chunk] = []
    for frame in range(frames):
        feed(core, task, START + frame * task.control.period_ns)
        while (due := core.take()) is not None:
            core.publish(core.decide(due), lambda made: chunks.append(made.chunk))
    return chunks


@pytest.mark.parametrize("slow", LATENCIES_S, indirect=True)
def test_actions_are_stamped_earlier_by_the_latency(
    make_bundle: Callable[..., Path], task: Task, slow: Task
) -> None:
    at_once = chunks_of(task, make_bundle("at-once"), 13)
    early = chunks_of(slow, make_bundle("early", made_for=slow), 13)
    assert len(early) == len(at_once) == 4
    shift = round(slow.latency.action_s * 1e9)
    for before, after in zip(at_once, early, strict=True):
        check_chunk(after, slow)
        assert list(after.stamps_ns) == [stamp - shift for stamp in before.stamps_ns]
        assert after.stamps_ns[0] == after.observation_ns - shift
        assert after.expires_ns == before.expires_ns - shift
        assert after.observation_ns == before.observation_ns
        assert after.observation_digest == before.observation_digest
        np.testing.assert_array_equal(after.actions, before.actions)
    # One chunk goes on where the one before ends.
    for one, following in itertools.pairwise(early):
        assert following.stamps_ns[0] - one.stamps_ns[-1] == task.control.period_ns


@pytest.mark.parametrize("slow", LATENCIES_S[:-1], indirect=True)
def test_in_real_time_the_next_chunk_comes_before_the_plan_ends(
    make_bundle: Callable[..., Path], slow: Task
) -> None:
    now, period, arrivals = [START], slow.control.period_ns, []
    core = PolicyCore(slow, lockstep=False, wall=lambda: now[0], monotonic=lambda: now[0] - START)
    core.use(PolicyRuntime(make_bundle(made_for=slow), slow))
    core.activate(True)
    for frame in range(40):
        now[0] = START + frame * period
        feed(core, slow, now[0])
        if (due := core.take()) is not None:
            now[0] += 5_000_000  # it takes some time
            core.publish(core.decide(due), lambda made: arrivals.append((now[0], made.chunk)))
        core.check_deadline()
    assert len(arrivals) > 10
    for (_, before), (arrival_ns, chunk) in itertools.pairwise(arrivals):
        next_ns = int(before.stamps_ns[-1]) + period
        assert arrival_ns < next_ns, "the gateway has nothing to send at this time"
        assert next_ns in chunk.stamps_ns
    assert core.statistics.missed == 0
