"""What the policy would do where it does not move the robot. No ROS in here."""

from __future__ import annotations

import numpy as np

from rl100_contracts.chunks import Chunk
from rl100_contracts.motion import CommandShaper, State
from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.plan import Planned
from rl100_control.tick import FloatArray, Shadow


class ShadowMotion:
    """Shapes planned actions as the gateway would, without anybody seeing it.

    Args:
        task: the contract; its limits hold here too.
    """

    def __init__(self, task: Task) -> None:
        self._shaper = CommandShaper(task)
        self._period_s = task.control.period_ns / NANOSECONDS
        self._chunk: Chunk | None = None

    def follow(self, planned: Planned, now: State, feedback: FloatArray) -> Shadow:
        """One planned action; each chunk starts from what the robot does (``now``) at its begin."""
        if planned.chunk is not self._chunk:
            self._shaper.restore(now)
            self._chunk = planned.chunk
        shaped = self._shaper.shape(planned.action, self._period_s)
        deviation = float(np.max(np.abs(shaped.target - feedback)))
        return Shadow(planned, shaped.action, shaped.target, deviation)
