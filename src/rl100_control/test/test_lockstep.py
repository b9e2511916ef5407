"""In lockstep a tick waits for all that belongs to it, and not for ever.

Pins: what a tick needs, that a later frame or joint state serves as well, what is named when the
patience is over, and that nothing is overdue in idle.
"""

from __future__ import annotations

import numpy as np
import pytest

from rl100_contracts.chunks import Chunk
from rl100_contracts.task import load_task
from rl100_control.gateway import Gateway
from rl100_control.lockstep import WaitingTick
from rl100_control.tick import Mode

TASK = load_task("push")
DT = TASK.control.period_ns
T0 = 10**12


class Clock:
    """Time that goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Joints:
    """Of the kinematics only what the tick asks."""

    joints_ns = 0


def chunk(stamp_ns: int) -> Chunk:
    stamps = stamp_ns + DT * np.arange(4, dtype=np.int64)
    actions = np.zeros((4, TASK.action.dim), dtype=np.float32)
    return Chunk(1, "policy", "v1", stamp_ns, stamps, actions, int(stamps[-1]) + DT)


@pytest.fixture
def gateway() -> Gateway:
    made = Gateway(TASK, Mode.POLICY, lockstep=True)
    assert not made.on_feedback(T0, np.zeros(TASK.action.dim))
    return made


def test_a_tick_needs_feedback_frame_joints_and_chunk(gateway: Gateway) -> None:
    joints = Joints()
    tick = WaitingTick(gateway, joints, "cloud", 5.0)  # type: ignore[arg-type]
    assert not gateway.on_chunk(chunk(T0), T0, teleop=False)
    tick.on_frame(T0)
    joints.joints_ns = T0
    assert tick.ready() is None  # without feedback nobody asks for one
    tick.begin(T0)
    assert tick.ready() == T0
    joints.joints_ns = T0 - 1
    assert tick.ready() is None
    joints.joints_ns = T0 + DT
    assert tick.ready() == T0
    tick.forget()
    assert tick.ready() is None
    tick.begin(T0 + DT)
    assert tick.ready() is None  # the frame is the one of the tick before
    tick.on_frame(T0 + 2 * DT)
    tick.on_frame(T0)  # one that was overtaken changes nothing
    assert tick.ready() == T0 + DT
    tick.begin(T0 + 9 * DT)
    tick.on_frame(T0 + 9 * DT)
    joints.joints_ns = T0 + 9 * DT
    assert tick.ready() is None  # the plan has no action for it


@pytest.mark.parametrize("frame", ["cloud", "image"])
def test_what_did_not_come_is_named_when_the_patience_is_over(gateway: Gateway, frame: str) -> None:
    clock = Clock()
    tick = WaitingTick(gateway, None, frame, 5.0, clock)
    assert tick.overdue() is None
    tick.begin(T0)
    clock.now += 4.9
    assert tick.overdue() is None
    clock.now += 0.2
    assert tick.overdue() == (T0, frame)
    tick.on_frame(T0)
    assert tick.overdue() == (T0, "chunk")
    assert not gateway.set_mode(Mode.IDLE)
    assert tick.overdue() is None
    assert not gateway.set_mode(Mode.POLICY)
    tick.begin(T0 + DT)  # the patience is for each tick
    assert tick.overdue() is None
