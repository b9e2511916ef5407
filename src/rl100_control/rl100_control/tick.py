"""What the gateway does in a tick, as data: the mode, what was sent, and why. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from rl100_control.plan import Planned

FloatArray = NDArray[np.float64]


class Mode(IntEnum):
    """Who may move the robot (the values of rl100_msgs/ExecutedAction.MODE_*)."""

    IDLE = 0
    TELEOP = 1
    POLICY = 2
    TAKEOVER = 3
    STOPPED = 4
    SHADOW = 5


#: By the names that people use.
MODES = {mode.name.lower(): mode for mode in Mode}


@dataclass(frozen=True)
class Shadow:
    """What the policy would have done in a tick.

    Attributes:
        planned: its action.
        action: after all limits, float32 (d,), task units.
        target: that would have been sent, float64 (d,), m or rad.
        deviation: largest distance of target and feedback over the axes, m or rad.
    """

    planned: Planned
    action: NDArray[np.float32]
    target: FloatArray
    deviation: float


@dataclass(frozen=True)
class Tick:
    """What was done in one tick.

    Attributes:
        stamp_ns: of the tick, ns.
        mode: in which it was done.
        target: float64 (d,), m or rad.
        velocity: of the target's coordinates, float64 (d,), m/s or rad/s; zeros when it stands.
        feedback: measured position, float64 (d,).
        action: what was really done, float32 (d,), task units; no motion when holding (but while
            the robot comes to rest).
        planned: the action that was asked for; None when holding.
        planned_target: float64 (d,), what it asked for before the limits; None when holding.
        hold: the robot is told to stay, or to come to rest.
        limited: a limit changed the action.
        reason: why it held or limited; empty when it did neither.
        send: False: the robot must not even be told to stay.
        shadow: what the policy would have done where it does not move the robot, or None.
    """

    stamp_ns: int
    mode: Mode
    target: FloatArray
    velocity: FloatArray
    feedback: FloatArray
    action: NDArray[np.float32]
    planned: Planned | None = None
    planned_target: FloatArray | None = None
    hold: bool = False
    limited: bool = False
    reason: str = ""
    send: bool = True
    shadow: Shadow | None = None
