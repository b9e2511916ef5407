"""Latency of the robot: an action is sent so much earlier that it has its effect when it is due.

Pins: ``latency.action_s`` moves the stamps of a chunk's actions, and with them its end, and nothing
else: not the observation, not the actions, not when the next decision is due.
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
# Less than a period of this task, not a whole number of them, and more than a whole chunk.
LATENCIES_S = [0.012, 0.1234, 0.5]


def chunks_of(task: Task, bundle: Path, frames: int) -> list[Chunk]:
    """Every chunk in lockstep, of frames of one control period."""
    core = PolicyCore(task, lockstep=True)
    core.use(PolicyRuntime(bundle, task))
    core.activate(True)
    chunks: list[Chunk] = []
    for stamp in range(START, START + frames * task.control.period_ns, task.control.period_ns):
        core.add("joint_states", stamp, np.full(2, 0.1, np.float32))
        core.add("tool_pose", stamp, np.full(2, 0.1, np.float32))
        core.add("points", stamp, np.zeros((task.observation.num_points, 3), np.float32))
        while (due := core.take()) is not None:
            core.publish(core.decide(due), lambda made: chunks.append(made.chunk))
    return chunks


@pytest.mark.parametrize("latency_s", LATENCIES_S)
def test_actions_are_stamped_earlier_by_the_latency(
    make_bundle: Callable[..., Path], task: Task, latency_s: float
) -> None:
    values = task.model_dump(mode="json")
    latency = {**values["latency"], "action_s": latency_s}
    slow = Task.model_validate({**values, "latency": latency})
    at_once = chunks_of(task, make_bundle("at-once"), 13)
    early = chunks_of(slow, make_bundle("early", made_for=slow), 13)
    assert len(early) == len(at_once) == 4
    shift = round(latency_s * 1e9)
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
