"""From a direction (keys, stick) to actions of the task. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.chunks import Chunk
from rl100_contracts.task import NANOSECONDS, Task

FloatArray = NDArray[np.float64]

LIFE_PERIODS = 2.5


class Steering:
    """Actions of one task, whatever its action space.

    Delta spaces get a part of the largest step. Absolute spaces get a target that moves with a
    part of the largest velocity, starting from the measured position each time motion begins.

    Args:
        task: the contract.
        source: name of the input device.
        sequence: of the first chunk; larger than any of an earlier process, so that a restarted
            device isn't taken for a late message.
    """

    def __init__(self, task: Task, source: str, sequence: int) -> None:
        action = task.action
        self._task, self._source = task, source
        self._low, self._high = np.asarray(action.low), np.asarray(action.high)
        self._step = np.asarray(task.limits.velocity) / task.control.rate_hz
        self._is_delta = action.is_delta
        self._target: FloatArray | None = None
        self._sequence = sequence - 1

    @property
    def needs_feedback(self) -> bool:
        """Whether ``action`` needs the measured position (absolute action spaces)."""
        return not self._is_delta

    def release(self) -> None:
        """Motion ended: the next one starts from where the robot is then."""
        self._target = None

    def action(
        self, direction: FloatArray, speed: float, position: FloatArray | None = None
    ) -> NDArray[np.float32]:
        """The next action, float32 (d,), task units, within the task's bounds.

        Args:
            direction: (d,), each from -1 to 1.
            speed: part of the largest step or velocity, 0 to 1.
            position: measured, (d,), m or rad; used by absolute spaces at the begin of motion.

        Raises:
            ValueError: an absolute space without a position.
        """
        amount = np.clip(direction, -1.0, 1.0) * float(np.clip(speed, 0.0, 1.0))
        if self._is_delta:
            step = np.where(amount > 0, amount * self._high, -amount * self._low)
            return np.clip(step, self._low, self._high).astype(np.float32)
        if self._target is None:
            if position is None:
                raise ValueError("an absolute action space needs the measured position")
            self._target = np.asarray(position, dtype=np.float64)
        self._target = np.clip(self._target + amount * self._step, self._low, self._high)
        return self._target.astype(np.float32)

    def chunk(self, action: NDArray[np.float32], now_ns: int) -> Chunk:
        """A chunk of one action that is due now and expires after some control periods."""
        self._sequence += 1
        expires = now_ns + round(LIFE_PERIODS * NANOSECONDS / self._task.control.rate_hz)
        return Chunk(
            self._sequence,
            self._source,
            "",
            now_ns,
            np.array([now_ns], dtype=np.int64),
            action.reshape(1, -1),
            expires,
        )


class Engagement:
    """Whether the operator is at the controls: from the first motion until some time after it.

    Short pauses in a demonstration are the operator's decision to stand still and are published as
    actions; after ``release_s`` without motion the robot is left to others.
    """

    def __init__(self, release_s: float = 1.0) -> None:
        self._release_s = release_s
        self._moved: float | None = None

    def update(self, moving: bool, now: float) -> bool:
        """Whether to publish an action now (s, steady)."""
        if moving:
            self._moved = now
        elif self._moved is not None and now - self._moved > self._release_s:
            self._moved = None
        return self._moved is not None

    def end(self) -> bool:
        """Leave the controls at once; whether the operator was at them."""
        before, self._moved = self._moved, None
        return before is not None
