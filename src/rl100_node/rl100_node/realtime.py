"""Even timing in a Python process: real-time settings and a loop on absolute deadlines. No rclpy.

What disturbs a Python thread, and what is done about it here:

* the interpreter lock: another thread keeps it for up to ``sys.getswitchinterval()`` (5 ms by
  default); a running ``DeadlineLoop`` lowers that to ``SWITCH_INTERVAL_S``;
* the garbage collector, which stops everything when it likes: with ``freeze_gc`` it runs between
  two ticks only, and never over what existed when the loop began;
* the scheduler and paging: ``thread_priority``, ``cpu_affinity``, ``lock_memory``.
"""

from __future__ import annotations

import ctypes
import gc
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rl100_node.figures import Window

SWITCH_INTERVAL_S = 0.0005
COLLECT_PERIOD_NS = 1_000_000_000
LATEST_COLLECTION_NS = 30 * COLLECT_PERIOD_NS
# ``align`` moves the grid by this part of a period in a tick, so that it stays even.
SLEW = 0.01
_MCL_CURRENT_AND_FUTURE = 3
_CAP_IPC_LOCK = 1 << 14


@dataclass(frozen=True)
class RealtimeSettings:
    """What a node asks of the system; the defaults ask for nothing.

    Attributes:
        thread_priority: SCHED_FIFO priority of the loop's thread, 1 to 99, the process's other
            threads one below it; 0: normal scheduling.
        cpu_affinity: CPUs that the loop's thread may run on; empty: any.
        lock_memory: keep the whole process in memory (mlockall).
        freeze_gc: collect garbage between two ticks only.
    """

    thread_priority: int = 0
    cpu_affinity: tuple[int, ...] = ()
    lock_memory: bool = False
    freeze_gc: bool = False


def _set_priority(priority: int) -> str:
    """The calling thread first, then all others: what a loop waits for passes through them.

    A message is taken by a thread of DDS and one of the executor. Where these have to wait for
    other processes, the loop's own priority is of no use.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        _lift(threading.get_native_id(), priority)
    except OSError as error:
        return (
            f"thread_priority {priority} is refused ({error.strerror}): allow real-time "
            "scheduling (rtprio in /etc/security/limits.conf, or CAP_SYS_NICE in a container)"
        )
    return ""


def _lift(loop: int, priority: int) -> None:
    """All threads but the loop's own and loaders to one below the loop's priority."""
    others = os.sched_param(max(priority - 1, 1))
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != loop and thread not in _behind:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(thread, os.SCHED_FIFO, others)


def back_to_normal() -> None:
    """Take real-time priority from all threads of the process."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


_behind: set[int] = set()  # threads that are in ``behind_loops``


@contextmanager
def behind_loops() -> Iterator[None]:
    """Work of the calling thread that no loop has to wait for, but that shares a process with one.

    It gets the lowest real-time priority, where it has inherited one: what it holds, such as the
    interpreter lock, must not wait for other processes, and a loop still comes first. No loop that
    starts meanwhile lifts it.
    """
    thread = threading.get_native_id()
    _behind.add(thread)
    try:
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
            with suppress(PermissionError):  # inherited from a system that grants no more
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        yield
    finally:
        _behind.discard(thread)


def _set_affinity(cpus: tuple[int, ...]) -> str:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError):
        names = ", ".join(str(cpu) for cpu in sorted(allowed))
        return f"cpu_affinity {list(cpus)} is refused: this process may use the CPUs {names}"
    # The kernel drops CPUs that do not exist without a word as long as one is left.
    if missing := set(cpus) - os.sched_getaffinity(0):
        return f"cpu_affinity: this process may not use CPU {min(missing)}; the others are set"
    return ""


def _memory_is_limited() -> bool:
    """Whether later allocations would fail under a lock of all future memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY and soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) & _CAP_IPC_LOCK
    return True


def _lock_memory() -> str:
    mend = "set memlock to unlimited in /etc/security/limits.conf (--ulimit memlock=-1 in Docker)"
    if _memory_is_limited():
        return f"lock_memory is refused (the limit on locked memory is finite): {mend}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) != 0:
        return f"lock_memory is refused ({os.strerror(ctypes.get_errno())}): {mend}"
    return ""


def apply_realtime(settings: RealtimeSettings) -> list[str]:
    """Apply settings: CPUs and the highest priority to the calling thread, the rest to the process.

    Returns:
        One sentence, with the mend, for each setting that the system refuses. The rest is applied.
    """
    refusals = []
    if settings.cpu_affinity:
        refusals.append(_set_affinity(settings.cpu_affinity))
    if settings.lock_memory:
        refusals.append(_lock_memory())
    if settings.freeze_gc:
        gc.collect()
        gc.freeze()
        gc.disable()
    if settings.thread_priority:
        refusals.append(_set_priority(settings.thread_priority))
    return [refusal for refusal in refusals if refusal]


def release_gc() -> None:
    """Undo ``freeze_gc``."""
    gc.unfreeze()
    gc.enable()


@dataclass(frozen=True)
class LoopFigures:
    """How evenly a loop ran since its start.

    Attributes:
        ticks: calls of ``tick``.
        missed: points of the grid without a tick, because the one before was still running.
        late_p50_ms, late_p99_ms: from the moment when a tick should have begun to its beginning,
            over the last 1000 ticks.
        late_max_ms: the latest tick of all.
    """

    ticks: int
    missed: int
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float


class DeadlineLoop:
    """Calls ``tick`` in a thread of its own at each point of a grid of absolute monotonic times.

    The grid does not drift: point n is the start plus n periods. A point that passes while a tick
    is running is counted as missed, and the loop goes on with the next one. ``wake`` calls
    ``tick`` at once, beside the grid, so that a loop can also follow events; ``align`` moves the
    grid slowly to where it fits the events of others.

    Args:
        tick: called with the time at which it should have begun, ns of ``time.monotonic_ns``.
        period_ns: of the grid.
        settings: applied when the loop starts.
        name: of the thread.
        on_failure: called in the loop's thread with an exception of ``tick``, which ends the loop.
    """

    def __init__(
        self,
        tick: Callable[[int], object],
        period_ns: int,
        *,
        settings: RealtimeSettings | None = None,
        name: str = "control",
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.refusals: list[str] = []
        self._tick, self._period_ns, self._name = tick, period_ns, name
        self._settings = settings or RealtimeSettings()
        self._on_failure = on_failure
        self._calls: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._late_ms = Window()
        self._ticks = self._missed = 0
        self._collected_ns = self._collection_ns = 0
        self._wanted_ns: int | None = None

    def start(self) -> list[str]:
        """Start; returns one sentence for each setting that the system refuses (``refusals``)."""
        if self._thread is not None:
            raise RuntimeError(f"the loop '{self._name}' runs already")
        self._calls = queue.SimpleQueue()
        self._late_ms.clear()
        self._ticks = self._missed = 0
        self._wanted_ns = None
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready, self._calls), name=self._name, daemon=True
        )
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._thread.start()
        ready.wait()
        return self.refusals

    def wake(self) -> None:
        """Call ``tick`` as soon as possible; from any thread, never blocks."""
        if self._calls.empty():  # otherwise a tick is about to begin, and sees what is new
            self._calls.put(time.monotonic_ns())

    def align(self, point_ns: int) -> None:
        """From now on let points of the grid fall on ``point_ns`` plus whole periods.

        The grid gets there by SLEW of a period in each tick. From any thread.
        """
        self._wanted_ns = point_ns

    def _slew(self, deadline: int) -> int:
        """By how much the next point of the grid comes later than a period, ns."""
        wanted = self._wanted_ns
        if wanted is None:
            return 0
        half = self._period_ns // 2
        error = (wanted - deadline + half) % self._period_ns - half
        most = round(SLEW * self._period_ns)
        return max(-most, min(error, most))

    def lift_threads(self) -> None:
        """Give threads that were made since the start (of a model's pool) their priority too."""
        thread, priority = self._thread, self._settings.thread_priority
        if priority and thread is not None and thread.native_id and not self.refusals:
            with suppress(OSError):  # refused before, too
                _lift(thread.native_id, priority)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the loop after the present tick; False when that takes longer than ``timeout_s``."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._calls.put(None)
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        if self._settings.freeze_gc:
            release_gc()
        return not thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread is there (it ends by ``stop``, or by an exception of ``tick``)."""
        return self._thread is not None and self._thread.is_alive()

    def figures(self) -> LoopFigures:
        """How evenly the loop ran since its start."""
        p50, p99 = self._late_ms.percentiles(50, 99)
        return LoopFigures(self._ticks, self._missed, p50, p99, self._late_ms.largest)

    def _run(self, ready: threading.Event, calls: queue.SimpleQueue[int | None]) -> None:
        self.refusals = apply_realtime(self._settings)
        ready.set()
        try:
            self._follow(calls)
        except BaseException as error:
            if self._on_failure is None:
                raise
            self._on_failure(error)

    def _follow(self, calls: queue.SimpleQueue[int | None]) -> None:
        deadline = time.monotonic_ns() + self._period_ns
        while True:
            try:
                wait_ns = deadline - time.monotonic_ns()
                call = calls.get(timeout=wait_ns * 1e-9) if wait_ns > 0 else calls.get_nowait()
                if call is None:
                    return
                wanted = call
            except queue.Empty:
                if time.monotonic_ns() < deadline:
                    continue
                wanted = deadline
            begin = time.monotonic_ns()
            self._late_ms.add((begin - wanted) * 1e-6)
            self._ticks += 1
            self._tick(wanted)
            end = time.monotonic_ns()
            if wanted == deadline:
                deadline += self._period_ns + self._slew(deadline)
            if end >= deadline:
                passed = (end - deadline) // self._period_ns + 1
                self._missed += passed
                deadline += passed * self._period_ns
            if self._settings.freeze_gc:
                self._collect(end, deadline)

    def _collect(self, now: int, deadline: int) -> None:
        """Collect garbage when there is time for it before the next point of the grid."""
        waited = now - self._collected_ns
        if waited < COLLECT_PERIOD_NS:
            return
        # One collection that took long, perhaps as it was interrupted, must not be the last one.
        if waited < LATEST_COLLECTION_NS and deadline - now < 2 * self._collection_ns:
            return
        gc.collect()
        self._collected_ns = time.monotonic_ns()
        self._collection_ns = self._collected_ns - now
