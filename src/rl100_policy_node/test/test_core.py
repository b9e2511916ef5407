"""Decisions are made on stamps: at the first frame, when the plan runs out, and after a break.

Pins: decision times in lockstep and the lead in real time; chunk stamps, expiry, sequence and
digest; nothing old after a reset, not even a decision that was under way; duplicates and messages
out of order change nothing; a stopped stream is named and recovery needs nothing; clock jumps;
deadlines that pass are counted; a swap lies between two decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.chunks import Chunk, check_chunk
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import ObservationAssembler, ObservationError
from rl100_contracts.task import Task
from rl100_policy_node.core import Due, PolicyCore
from rl100_policy_node.runtime import PolicyRuntime

START = 10**13
MakeBundle = Callable[..., Path]


class Clock:
    """Wall and monotonic time that pass only when told to."""

    def __init__(self) -> None:
        self.wall_ns, self.monotonic_ns = START, 0

    def wait(self, ns: int) -> None:
        self.wall_ns += ns
        self.monotonic_ns += ns


def _feed(core: PolicyCore | ObservationAssembler, task: Task, stamp: int) -> None:
    points = task.observation.cloud.num_points
    core.add("joint_states", stamp, np.full(2, stamp * 1e-10, np.float32))
    core.add("tool_pose", stamp, np.full(2, 0.1, np.float32))
    core.add("points", stamp, np.full((points, 3), stamp * 1e-10, np.float32))


def _decide(core: PolicyCore, clock: Clock | None = None, delay_ns: int = 0) -> list[Chunk]:
    """Make every decision that is due; each takes ``delay_ns``."""
    chunks: list[Chunk] = []
    while (due := core.take()) is not None:
        decision = core.decide(due)
        if clock is not None:
            clock.wait(delay_ns)
        core.publish(decision, lambda made: chunks.append(made.chunk))
    return chunks


def _run(core: PolicyCore, task: Task, stamps: list[int]) -> list[Chunk]:
    chunks = []
    for stamp in stamps:
        _feed(core, task, stamp)
        chunks += _decide(core)
    return chunks


@pytest.fixture
def core(make_bundle: MakeBundle, task: Task) -> PolicyCore:
    core = PolicyCore(task, lockstep=True)
    core.use(PolicyRuntime(make_bundle(), task))
    core.activate(True)
    return core


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(make_bundle: MakeBundle, task: Task, clock: Clock) -> PolicyCore:
    """In real time, with a clock of the test."""
    core = PolicyCore(
        task, lockstep=False, wall=lambda: clock.wall_ns, monotonic=lambda: clock.monotonic_ns
    )
    core.use(PolicyRuntime(make_bundle(), task))
    core.activate(True)
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


def _tick(core: PolicyCore, task: Task, clock: Clock, delay_ns: int = 0) -> list[Chunk]:
    """A frame stamped now, its decision, and the rest of the control period."""
    begin = clock.wall_ns
    _feed(core, task, begin)
    chunks = _decide(core, clock, delay_ns)
    core.check_deadline()
    clock.wait(max(begin + task.control.period_ns - clock.wall_ns, 0))
    return chunks


def test_real_time_decides_early_enough(live: PolicyCore, task: Task, clock: Clock) -> None:
    period = task.control.period_ns
    chunks: list[Chunk] = []
    pending: list[tuple[int, Due]] = []  # decisions that take one and a half periods
    for i in range(12):
        _feed(live, task, START + i * period)
        if (due := live.take()) is not None:
            pending.append((i, due))
        clock.wait(period // 2)
        if pending and pending[0][0] == i - 1:
            decision = live.decide(pending.pop(0)[1])
            live.publish(decision, lambda made: chunks.append(made.chunk))
        clock.wait(period - period // 2)
    assert live.lead_ns() == 2 * period
    assert [(c.observation_ns - START) // period for c in chunks] == [0, 2, 4, 6, 8, 10]
    assert live.statistics.overruns == len(chunks)
    assert live.statistics.missed == 0 and not live.too_slow()


def test_real_time_takes_the_newest_frame(live: PolicyCore, task: Task) -> None:
    period = task.control.period_ns
    for i in range(3):
        _feed(live, task, START + i * period)
    (chunk,) = _decide(live)
    assert chunk.observation_ns == START + 2 * period


def test_deadlines_that_pass_are_counted_until_the_supply_is_dry(
    live: PolicyCore, task: Task, clock: Clock
) -> None:
    _tick(live, task, clock)
    lasts = task.control.n_action_steps * task.control.period_ns
    assert live.statistics.missed == 0
    clock.wait(lasts + task.control.period_ns)  # frames stop: the next decision was due before
    live.check_deadline()
    assert live.statistics.missed == 1
    live.check_deadline()
    assert live.statistics.missed == 1
    clock.wait(60 * 10**9)  # waiting for a camera is no missed deadline
    live.check_deadline()
    assert live.statistics.missed == 1
    assert len(_tick(live, task, clock)) == 1


def test_a_late_decision_is_a_missed_deadline(live: PolicyCore, task: Task, clock: Clock) -> None:
    count, period = task.control.n_action_steps, task.control.period_ns
    for _ in range(count - 1):
        _tick(live, task, clock)
    assert live.statistics.missed == 0
    assert len(_tick(live, task, clock, delay_ns=3 * period // 2)) == 1
    assert live.statistics.missed == 1


@pytest.mark.parametrize(("part", "lead"), [(0.1, 1), (0.7, 1), (0.8, 2), (1.7, 2), (1.8, 3)])
def test_the_way_to_the_gateway_needs_time_too(
    live: PolicyCore, task: Task, clock: Clock, part: float, lead: int
) -> None:
    """A chunk that would come just before its tick is decided on a period earlier."""
    _tick(live, task, clock, delay_ns=round(part * task.control.period_ns))
    assert live.lead_ns() == lead * task.control.period_ns


def test_slow_decisions_are_said(live: PolicyCore, task: Task, clock: Clock) -> None:
    lasts = task.control.n_action_steps * task.control.period_ns
    _tick(live, task, clock, delay_ns=lasts // 2)
    assert not live.too_slow()
    clock.wait(10**10)
    _tick(live, task, clock, delay_ns=lasts + 1)
    assert live.too_slow()


def test_no_chunk_of_the_time_before_a_reset(live: PolicyCore, task: Task, clock: Clock) -> None:
    _feed(live, task, START)
    due = live.take()
    assert due is not None
    decision = live.decide(due)
    live.reset(START + 1)
    sent: list[object] = []
    assert not live.publish(decision, sent.append) and sent == []
    assert live.statistics.inferences == 0


def test_no_history_from_before_a_reset(live: PolicyCore, task: Task, clock: Clock) -> None:
    period = task.control.period_ns
    for i in range(3):
        _feed(live, task, START + i * period)
    reset = START + 2 * period + 1
    live.reset(reset)
    assert live.take() is None, "what was due is not due any more"
    late = START + 2 * period  # still under way when the episode began
    _feed(live, task, late)
    assert live.take() is None
    _feed(live, task, reset + period)
    due = live.take()
    assert due is not None
    expected = np.float32((reset + period) * 1e-10)
    assert (due.observation.cloud == expected).all(), "every frame is one of the new episode"
    assert (due.observation.state[:, :2] == expected).all()


def test_deactivation_stops_decisions_under_way(live: PolicyCore, task: Task) -> None:
    _feed(live, task, START)
    due = live.take()
    assert due is not None
    live.activate(False)
    assert not live.publish(live.decide(due), lambda _: None)
    _feed(live, task, START + task.control.period_ns)
    assert live.take() is None


def test_a_stopped_stream_is_named_and_comes_back(
    live: PolicyCore, task: Task, clock: Clock
) -> None:
    period = task.control.period_ns
    assert "no message on" in live.waiting_for()
    for _ in range(6):
        _tick(live, task, clock)
    assert live.waiting_for() == ""
    points = np.zeros((task.observation.cloud.num_points, 3), np.float32)
    for stopped, topic in (("joint_states", "joint_states"), ("points", "points")):
        for _ in range(20):  # the other streams go on
            for name, value in (("points", points), ("joint_states", points[0, :2])):
                if name != stopped:
                    live.add(name, clock.wall_ns, value)
            live.add("tool_pose", clock.wall_ns, points[0, :2])
            assert live.take() is None or stopped == "joint_states"
            clock.wait(period)
        waiting = live.waiting_for()
        assert waiting.startswith(f"no message on {task.streams[topic].topic} for more than")
        assert len(_tick(live, task, clock)) == 1
        assert live.waiting_for() == ""


def test_wrong_clocks_are_said(live: PolicyCore, task: Task, clock: Clock) -> None:
    _feed(live, task, START - 5 * 10**9)
    assert "stamped more than" in live.waiting_for() and "before" in live.waiting_for()
    _feed(live, task, START + 5 * 10**9)
    assert "after their arrival" in live.waiting_for()


@pytest.mark.parametrize("jump_s", [3600.0, 0.3, -0.3, -3600.0])
def test_a_clock_that_jumps_costs_one_decision_at_most(
    live: PolicyCore, task: Task, clock: Clock, jump_s: float
) -> None:
    for _ in range(9):
        _tick(live, task, clock)
    clock.wall_ns += round(jump_s * 1e9)
    chunks = _tick(live, task, clock)
    assert [chunk.observation_ns for chunk in chunks] == [clock.wall_ns - task.control.period_ns]
    assert live.supply.clock_jumps == 1 and live.waiting_for() == ""
    (due_value,) = {float(v) for v in live.assembler.observe(chunks[0].observation_ns).cloud.flat}
    assert due_value == np.float32(chunks[0].observation_ns * 1e-10), "no frame from before"
    for _ in range(task.control.n_action_steps):
        chunks += _tick(live, task, clock)
    assert len(chunks) == 2 and live.statistics.missed == 0


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_duplicates_and_wrong_order_never_give_a_second_decision(
    core: PolicyCore, task: Task, data: st.DataObject
) -> None:
    core.reset(0)
    core.assembler.clear()
    core._last_frame_ns = 0
    period, points = task.control.period_ns, task.observation.cloud.num_points
    values = {
        "joint_states": np.zeros(2, np.float32),
        "tool_pose": np.zeros(2, np.float32),
        "points": np.zeros((points, 3), np.float32),
    }
    messages = [(name, START + i * period) for i in range(10) for name in values]
    messages = data.draw(st.permutations(messages)) + data.draw(
        st.lists(st.sampled_from(messages), max_size=10)
    )
    chunks: list[Chunk] = []
    for name, stamp in messages:
        try:
            core.add(name, stamp, values[name])
        except ObservationError:
            continue  # the joints of that time were not there yet
        chunks += _decide(core)
    stamps = [chunk.observation_ns for chunk in chunks]
    assert stamps == sorted(set(stamps)), "each observation once, and never back in time"
    sequences = [chunk.sequence for chunk in chunks]
    assert sequences == sorted(set(sequences))
    steps = np.diff(stamps)
    assert (steps >= task.control.n_action_steps * period).all()


def test_a_swap_lies_between_two_decisions(
    live: PolicyCore, task: Task, clock: Clock, make_bundle: MakeBundle
) -> None:
    second = PolicyRuntime(make_bundle("second"), task)
    _feed(live, task, START)
    due = live.take()
    assert due is not None
    live.use(second)  # in the middle of a decision
    chunks: list[Chunk] = []
    assert live.publish(live.decide(due), lambda made: chunks.append(made.chunk))
    for _ in range(task.control.n_action_steps):
        clock.wait(task.control.period_ns)
        _feed(live, task, clock.wall_ns)
        chunks += _decide(live)
    assert [chunk.policy_version for chunk in chunks] == ["test-1", "second"]
    assert [chunk.sequence for chunk in chunks] == [1, 2]
    for version in ("test-1", "second"):
        assert live.previous is not None
        live.use(live.previous)
        assert live.runtime is not None and live.runtime.manifest.policy_version == version


def test_nothing_without_a_bundle(task: Task) -> None:
    core = PolicyCore(task, lockstep=True)
    core.activate(True)
    _feed(core, task, START)
    assert core.take() is None
    assert "no bundle is loaded" in core.waiting_for()


def test_stale_proprioception_gives_an_error_and_no_decision(core: PolicyCore, task: Task) -> None:
    core.add("joint_states", START, np.zeros(2, np.float32))
    core.add("tool_pose", START, np.zeros(2, np.float32))
    late = START + 4 * task.control.period_ns
    core.add("points", late, np.zeros((task.observation.cloud.num_points, 3), np.float32))
    assert core.take() is None
    core.add("joint_states", late, np.zeros(2, np.float32))
    with pytest.raises(ObservationError, match=r"the cloud is older than it by 0\.200 s"):
        core.add("tool_pose", late + 1, np.zeros(2, np.float32))
    assert core.take() is None


def test_values_that_are_not_finite_are_never_sent(
    live: PolicyCore, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.runtime is not None
    broken = np.full((task.control.n_action_steps, task.action.dim), np.nan, np.float32)
    monkeypatch.setattr(live.runtime, "one_step", lambda *_: broken)
    _feed(live, task, START)
    due = live.take()
    assert due is not None
    with pytest.raises(ContractError, match="not finite"):
        live.decide(due)


def test_sampler_change_restarts_the_figures_but_not_the_report(
    core: PolicyCore, task: Task
) -> None:
    _run(core, task, [START])
    figures = core.statistics
    assert figures.latency().model[0] > 0 and figures.inferences == 1
    core.set_sampler("k_step", True)
    assert figures.latency().model[0] == 0 and figures.inferences == 0
    _feed(core, task, START + task.control.n_action_steps * task.control.period_ns)
    due = core.take()
    assert due is not None
    decision = core.decide(due)
    assert decision.chain is not None and decision.chain.chain.shape == (4, 4, 2)
    core.publish(decision, lambda _: None)
    assert figures.inferences == 1
    report = "\n".join(figures.report())
    assert "2 decisions" in report and "test-1" in report and "missed deadlines 0" in report
