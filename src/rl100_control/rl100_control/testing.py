"""For tests of the gateway: tasks, chunks and a robot that follows. No ROS in here."""

from __future__ import annotations

from typing import Any

import numpy as np

from rl100_contracts.chunks import Chunk, check_chunk
from rl100_contracts.task import Task, load_task
from rl100_control.feedback import CONFIRMATIONS
from rl100_control.gateway import Gateway
from rl100_control.tick import Mode, Tick

TASK = load_task("push")
DT = TASK.control.period_ns
T0 = 1_000_000_000
HERE = np.zeros(2)


def changed(**sections: dict[str, Any]) -> Task:
    """The task ``push`` with other values in some of its sections."""
    data = TASK.model_dump(mode="json")
    for section, values in sections.items():
        data[section] |= values
    return Task.model_validate(data)


def absolute_task(**limits: Any) -> Task:
    action = {"space": "tool_position", "low": [-0.4, -0.4], "high": [0.4, 0.4]}
    return changed(action=action, limits=limits)


def chunk(
    sequence: int = 1, start: int = T0, actions: Any = ((0.01, 0.0),), **fields: Any
) -> Chunk:
    values = np.asarray(actions, dtype=np.float32)
    stamps = start + DT * np.arange(len(values), dtype=np.int64)
    known: dict[str, Any] = {"source": "policy", "policy_version": "v1", "observation_ns": start}
    known["expires_ns"] = int(stamps[-1]) + 500_000_000
    return Chunk(sequence=sequence, stamps_ns=stamps, actions=values, **(known | fields))


def gateway(
    mode: Mode = Mode.POLICY, *, lockstep: bool = True, task: Task = TASK, **options: Any
) -> Gateway:
    made = Gateway(task, mode, lockstep=lockstep, **options)
    settle(made, T0, HERE)
    return made


def settle(made: Gateway, now: int, there: Any) -> None:
    """Measurements in a row, the last one at ``now``: enough to be believed after a leap."""
    for back in range(CONFIRMATIONS - 1, -1, -1):
        last = made.on_feedback(now - back * DT, np.asarray(there))
    assert last == ""


def give(made: Gateway, plan: Chunk, now: int = T0, *, teleop: bool = False) -> str:
    check_chunk(plan, TASK)
    return made.on_chunk(plan, now, teleop=teleop)


def follow(made: Gateway, now: int) -> Tick:
    """One tick of a robot that reaches its target within the tick."""
    tick = made.tick(now)
    assert tick is not None
    assert made.on_feedback(now + DT, tick.target) == ""
    return tick
