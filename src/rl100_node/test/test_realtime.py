"""Even timing: the loop keeps to its grid, counts what it misses, follows events, ends cleanly, and
every real-time setting is applied or refused with a sentence; no refusal ends the program. With a
priority the process's other threads come just behind the loop, a loader last."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl100_node.figures import Window
from rl100_node.realtime import (
    SLEW,
    DeadlineLoop,
    RealtimeSettings,
    apply_realtime,
    back_to_normal,
    behind_loops,
)

MS = 1_000_000
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _own_thread_only() -> Iterator[None]:
    """Settings of the process are put back."""
    yield
    gc.unfreeze()
    gc.enable()
    back_to_normal()


def in_a_thread(settings: RealtimeSettings) -> tuple[list[str], set[int], int]:
    """Refusals, CPUs and scheduling policy of a thread with these settings."""
    found: list[tuple[list[str], set[int], int]] = []

    def work() -> None:
        refusals = apply_realtime(settings)
        found.append((refusals, os.sched_getaffinity(0), os.sched_getscheduler(0)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def test_ticks_lie_on_one_grid_and_missed_points_are_skipped() -> None:
    deadlines: list[int] = []
    done = threading.Event()

    def tick(deadline_ns: int) -> None:
        assert time.monotonic_ns() >= deadline_ns
        deadlines.append(deadline_ns)
        if len(deadlines) == 3:
            time.sleep(0.025)
        if len(deadlines) >= 8:
            done.set()

    loop = DeadlineLoop(tick, 10 * MS)
    assert loop.start() == []
    assert done.wait(PATIENCE_S)
    assert loop.stop() and not loop.running
    steps = np.diff(deadlines)
    assert not (steps % (10 * MS)).any(), "every tick lies on the grid that the first began"
    assert steps[2] >= 30 * MS
    skipped = int((steps // (10 * MS) - 1).sum())
    figures = loop.figures()
    assert figures.ticks == len(deadlines)
    # The last tick may have missed a point that no later tick shows.
    assert skipped >= 2 and figures.missed >= skipped
    assert 0 <= figures.late_p50_ms <= figures.late_p99_ms <= figures.late_max_ms


def test_the_grid_moves_slowly_to_where_it_is_wanted() -> None:
    deadlines: list[int] = []
    done = threading.Event()
    period, wanted = 2 * MS, 777_777

    def tick(deadline_ns: int) -> None:
        deadlines.append(deadline_ns)
        if len(deadlines) == 1:
            loop.align(wanted)
        if len(deadlines) >= 200:
            done.set()

    loop = DeadlineLoop(tick, period)
    loop.start()
    assert done.wait(PATIENCE_S)
    loop.stop()
    steps = np.diff(deadlines)
    most = round(SLEW * period)
    off = (steps + period // 2) % period - period // 2  # missed points leave whole periods
    assert np.abs(off).max() <= most
    assert (deadlines[-1] - wanted) % period == 0


def test_wake_calls_at_once_beside_the_grid() -> None:
    called = threading.Event()
    loop = DeadlineLoop(lambda _: called.set(), 3600 * 1000 * MS)
    loop.start()
    assert not called.wait(0.05)
    loop.wake()
    assert called.wait(PATIENCE_S)
    assert loop.stop()
    assert loop.figures().ticks == 1


def test_stop_does_not_wait_for_the_next_deadline_and_a_loop_can_start_again() -> None:
    loop = DeadlineLoop(lambda _: None, 3600 * 1000 * MS)
    for _ in range(2):
        loop.start()
        assert loop.running
        with pytest.raises(RuntimeError, match="runs already"):
            loop.start()
        assert loop.stop() and not loop.running
    assert loop.stop(), "stopping twice is no mistake"


def test_an_exception_ends_the_loop_and_is_handed_over() -> None:
    failures: list[BaseException] = []
    failed = threading.Event()

    def tick(_: int) -> None:
        raise ValueError("no robot")

    loop = DeadlineLoop(tick, MS, on_failure=lambda e: (failures.append(e), failed.set()))
    loop.start()
    assert failed.wait(PATIENCE_S)
    loop.stop()
    assert [str(error) for error in failures] == ["no robot"]
    assert loop.figures().ticks == 1


def test_frozen_garbage_is_collected_between_ticks_and_released_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rl100_node.realtime.COLLECT_PERIOD_NS", 0)
    ticks = threading.Semaphore(0)

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            freed.append(threading.current_thread().name)

    freed: list[str] = []

    def tick(_: int) -> None:
        Cycle()
        ticks.release()

    loop = DeadlineLoop(tick, MS, settings=RealtimeSettings(freeze_gc=True), name="loop")
    loop.start()
    assert not gc.isenabled() and gc.get_freeze_count() > 0
    for _ in range(20):
        assert ticks.acquire(timeout=PATIENCE_S)
    loop.stop()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    assert freed and set(freed) == {"loop"}


def test_affinity_is_set_for_the_thread_alone() -> None:
    mine = os.sched_getaffinity(0)
    cpu = min(mine)
    refusals, cpus, _ = in_a_thread(RealtimeSettings(cpu_affinity=(cpu,)))
    assert refusals == [] and cpus == {cpu} and os.sched_getaffinity(0) == mine


def test_cpus_that_are_not_there_are_refused_with_those_that_are() -> None:
    mine = os.sched_getaffinity(0)
    refusals, cpus, _ = in_a_thread(RealtimeSettings(cpu_affinity=(1023,)))
    assert cpus == mine and len(refusals) == 1
    assert "cpu_affinity [1023] is refused" in refusals[0] and str(min(mine)) in refusals[0]
    refusals, cpus, _ = in_a_thread(RealtimeSettings(cpu_affinity=(min(mine), 1023)))
    assert cpus == {min(mine)} and "may not use CPU 1023" in refusals[0]


def test_a_refused_priority_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    (refusal,) = apply_realtime(RealtimeSettings(thread_priority=50))
    assert "thread_priority 50 is refused (Operation not permitted)" in refusal
    assert "rtprio" in refusal


def test_priority_is_applied_or_refused() -> None:
    refusals, _, policy = in_a_thread(RealtimeSettings(thread_priority=1))
    assert (policy == os.SCHED_FIFO) == (refusals == [])


def scheduling(thread: int) -> tuple[int, int]:
    return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority


def test_what_the_loop_waits_for_comes_just_behind_it() -> None:
    """All threads of the process; a loader comes last, also when a loop starts meanwhile."""
    found: dict[str, tuple[int, int]] = {}

    def load() -> None:
        found["inherited"] = scheduling(0)
        with behind_loops():
            pool = threading.Thread(target=done.wait)
            pool.start()
            loop.lift_threads()
            found["loader"], found["pool"] = scheduling(0), scheduling(pool.native_id or 0)

    done = threading.Event()
    bystander = threading.Thread(target=done.wait)
    bystander.start()
    loop = DeadlineLoop(lambda _: None, 10 * MS, settings=RealtimeSettings(thread_priority=9))
    try:
        refused = loop.start()
        assert loop._thread is not None and loop._thread.native_id and bystander.native_id
        threads = {"loop": loop._thread.native_id, "bystander": bystander.native_id, "main": 0}
        found |= {name: scheduling(thread) for name, thread in threads.items()}
        loader = threading.Thread(target=load)
        loader.start()
        loader.join()
    finally:
        assert loop.stop()
        done.set()
    if refused:
        assert set(found.values()) == {(os.SCHED_OTHER, 0)}
    else:
        behind = (os.SCHED_FIFO, 8)
        assert found.pop("loop") == (os.SCHED_FIFO, 9)
        assert found.pop("loader") == (os.SCHED_RR, 1)
        assert found == dict.fromkeys(("bystander", "main", "inherited", "pool"), behind)
        back_to_normal()
        assert scheduling(0) == (os.SCHED_OTHER, 0)


def test_memory_is_not_locked_where_later_allocations_would_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rl100_node.realtime._memory_is_limited", lambda: True)
    (refusal,) = apply_realtime(RealtimeSettings(lock_memory=True))
    assert "lock_memory is refused" in refusal and "memlock" in refusal


@given(st.lists(st.floats(-1e6, 1e6), max_size=40), st.integers(1, 10))
def test_window_holds_the_last_values(values: list[float], size: int) -> None:
    window = Window(size)
    for value in values:
        window.add(value)
    held = values[-size:]
    assert len(window) == len(held)
    expected = np.percentile(held, [50, 99]) if held else [0.0, 0.0]
    np.testing.assert_allclose(window.percentiles(50, 99), expected)
    assert window.largest == max([0.0, *values])
