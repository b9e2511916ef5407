"""When the next decision must be out. No ROS in here."""

from __future__ import annotations

from rl100_contracts.task import Task


class Deadlines:
    """Counts the deadlines that pass without a decision; after one the next is a chunk later."""

    def __init__(self, task: Task) -> None:
        self._step_ns = task.control.n_action_steps * task.control.period_ns
        self._next_ns: int | None = None

    def set(self, deadline_ns: int) -> None:
        """The next decision must be out by then, ns of the monotonic clock."""
        self._next_ns = deadline_ns

    def forget(self) -> None:
        """Nothing is expected."""
        self._next_ns = None

    def passed(self, now_ns: int) -> int:
        """How many deadlines have passed since the last call."""
        if self._next_ns is None or now_ns <= self._next_ns:
            return 0
        count = (now_ns - self._next_ns) // self._step_ns + 1
        self._next_ns += count * self._step_ns
        return count
