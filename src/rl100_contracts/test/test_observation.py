"""An observation depends on the stamps in the data alone, never on the order of arrival.

Pins: bag/live parity (any interleaving that keeps each stream's order gives the same tensors once
the frame is complete); pad rule at the start of an episode; history never crosses a break or a
reset; stale proprioception, wrong shapes and NaN are refused with a sentence.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.observation import (
    Observation,
    ObservationAssembler,
    ObservationError,
    ObservationGap,
)
from rl100_contracts.task import load_task

TASK = load_task("push")
PERIOD = TASK.control.period_ns
POINTS = TASK.observation.cloud.num_points


def _cloud(stamp: int) -> np.ndarray:
    return np.full((POINTS, 3), stamp * 1e-9, dtype=np.float32)


def _sample(stamp: int) -> np.ndarray:
    return np.array([stamp * 1e-9, -stamp * 1e-9], dtype=np.float32)


def _feed(assembler: ObservationAssembler, stamps: list[int]) -> None:
    for stamp in stamps:
        assembler.add("joint_states", stamp, _sample(stamp))
        assembler.add("tool_pose", stamp, _sample(stamp))
        assembler.add("points", stamp, _cloud(stamp))


def _same(first: Observation, second: Observation) -> None:
    assert first.stamp_ns == second.stamp_ns
    np.testing.assert_array_equal(first.state, second.state)
    np.testing.assert_array_equal(first.cloud, second.cloud)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_live_arrival_order_gives_the_tensors_of_the_bag(data: st.DataObject) -> None:
    base = 10**9
    clouds = [base + i * PERIOD + data.draw(st.integers(-5, 5)) * 10**6 for i in range(6)]
    joints = [base - 10**7 + i * 10**7 for i in range(32)]
    tools = [base - 10**7 + i * 8 * 10**6 for i in range(40)]
    queues = {
        "points": [(s, _cloud(s)) for s in clouds],
        "joint_states": [(s, _sample(s)) for s in joints],
        "tool_pose": [(s, _sample(s)) for s in tools],
    }
    bag = ObservationAssembler(TASK, keep_s=None)
    for name, samples in queues.items():
        for stamp, value in samples:
            bag.add(name, stamp, value)
    live = ObservationAssembler(TASK)
    seen = 0
    while any(queues.values()):
        name = data.draw(st.sampled_from([n for n, q in queues.items() if q]))
        stamp, value = queues[name].pop(0)
        live.add(name, stamp, value)
        newest = live.latest_complete()
        if newest is not None and newest in clouds:
            _same(live.observe(newest), bag.observe(newest))
            seen += 1
    assert seen > 0


def test_frames_are_one_period_apart_oldest_first() -> None:
    assembler = ObservationAssembler(TASK)
    stamps = [10**9 + i * PERIOD for i in range(4)]
    _feed(assembler, stamps)
    observation = assembler.observe(stamps[-1])
    assert observation.state.shape == (2, 4) and observation.cloud.shape == (2, POINTS, 3)
    np.testing.assert_allclose(observation.state[:, 0], [stamps[2] * 1e-9, stamps[3] * 1e-9])
    np.testing.assert_allclose(observation.cloud[:, 0, 0], [stamps[2] * 1e-9, stamps[3] * 1e-9])


def test_faster_camera_takes_the_frame_one_period_ago() -> None:
    assembler = ObservationAssembler(TASK)
    stamps = [10**9 + i * PERIOD // 3 for i in range(10)]
    _feed(assembler, stamps)
    observation = assembler.observe(stamps[9])
    np.testing.assert_allclose(observation.state[0, 0], stamps[6] * 1e-9)


def test_first_frame_is_repeated_at_the_start() -> None:
    assembler = ObservationAssembler(TASK)
    _feed(assembler, [10**9])
    observation = assembler.observe(10**9)
    np.testing.assert_array_equal(observation.cloud[0], observation.cloud[1])
    np.testing.assert_array_equal(observation.state[0], observation.state[1])


def test_history_does_not_cross_a_break() -> None:
    assembler = ObservationAssembler(TASK)
    late = 10**9 + 30 * PERIOD
    _feed(assembler, [10**9, late])
    observation = assembler.observe(late)
    np.testing.assert_array_equal(observation.cloud[0], _cloud(late))


def test_reset_forgets_what_is_older() -> None:
    assembler = ObservationAssembler(TASK)
    stamps = [10**9 + i * PERIOD for i in range(3)]
    _feed(assembler, stamps)
    assembler.reset(after_ns=stamps[2])
    assert assembler.frame_stamps() == [stamps[2]]
    assembler.add("points", stamps[1], _cloud(stamps[1]))
    assert assembler.frame_stamps() == [stamps[2]]
    np.testing.assert_array_equal(assembler.observe(stamps[2]).cloud[0], _cloud(stamps[2]))


def test_a_frame_is_complete_only_when_nothing_older_can_arrive() -> None:
    assembler = ObservationAssembler(TASK)
    assembler.add("points", 10**9, _cloud(10**9))
    assembler.add("joint_states", 10**9, _sample(10**9))
    assert assembler.latest_complete() is None
    assert "/tool_pose" in assembler.waiting_for()
    assembler.add("tool_pose", 10**9 - 1, _sample(1))
    assert assembler.latest_complete() is None
    assembler.add("tool_pose", 10**9, _sample(10**9))
    assert assembler.latest_complete() == 10**9


def test_stale_proprioception_is_refused() -> None:
    assembler = ObservationAssembler(TASK)
    _feed(assembler, [10**9])
    late = 10**9 + 2 * PERIOD
    assembler.add("points", late, _cloud(late))
    with pytest.raises(ObservationGap, match=r"on /joint_states .* older than it by 0\.100 s, "):
        assembler.observe(late)
    missing = ObservationAssembler(TASK)
    missing.add("points", late, _cloud(late))
    with pytest.raises(ObservationGap, match=r"'joint_states' .* has no message that is older"):
        missing.observe(late)
    with pytest.raises(ObservationError, match="no cloud has the stamp"):
        assembler.observe(late + 1)


@pytest.mark.parametrize(
    ("stream", "value", "words"),
    [
        ("points", np.zeros((POINTS - 1, 3), np.float32), "shape"),
        ("points", np.full((POINTS, 3), np.nan, np.float32), "not finite"),
        ("joint_states", np.zeros(3, np.float32), "shape"),
        ("depth", np.zeros(2, np.float32), "not part of the observation"),
    ],
)
def test_bad_samples_are_refused_with_a_sentence(
    stream: str, value: np.ndarray, words: str
) -> None:
    with pytest.raises(ObservationError, match=words):
        ObservationAssembler(TASK).add(stream, 10**9, value)


def test_memory_is_bounded_live() -> None:
    assembler = ObservationAssembler(TASK, keep_s=1.0)
    _feed(assembler, [10**9 + i * PERIOD for i in range(1000)])
    assert len(assembler.frame_stamps()) < 50
