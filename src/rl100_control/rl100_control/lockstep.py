"""The tick that a world in lockstep waits for. No ROS in here."""

from __future__ import annotations

import time
from collections.abc import Callable

from rl100_control.gateway import Gateway
from rl100_control.kinematics import TargetCheck
from rl100_control.tick import Mode


class WaitingTick:
    """Feedback asks for a tick; the tick is done once all that belongs to it has come.

    That is its chunk, the joint states for the kinematics, and its cloud or image: perception would
    fall behind a world that goes on without it.

    Args:
        gateway: that ticks.
        kinematics: checks its targets; None: nothing does.
        frame: what the policy sees, "cloud" or "image".
        patience_s: after so long the tick is done without what is missing, s.
        steady: time that no jump of the wall clock touches, s.
    """

    def __init__(
        self,
        gateway: Gateway,
        kinematics: TargetCheck | None,
        frame: str,
        patience_s: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway, self._kinematics = gateway, kinematics
        self._frame, self._patience_s, self._steady = frame, patience_s, steady
        self._frame_ns = 0
        self._since = 0.0
        self._stamp_ns: int | None = None

    def begin(self, stamp_ns: int) -> None:
        """Feedback of the tick at ``stamp_ns`` has come."""
        self._stamp_ns, self._since = stamp_ns, self._steady()

    def forget(self) -> None:
        """The tick was done, or is not wanted any more."""
        self._stamp_ns = None

    def on_frame(self, stamp_ns: int) -> None:
        """A cloud or image has come."""
        self._frame_ns = max(self._frame_ns, stamp_ns)

    def ready(self) -> int | None:
        """Stamp of the tick that can be done now, or None."""
        stamp_ns = self._stamp_ns
        if stamp_ns is None or self._frame_ns < stamp_ns:
            return None
        if self._kinematics is not None and self._kinematics.joints_ns < stamp_ns:
            return None
        return stamp_ns if self._gateway.can_tick(stamp_ns) else None

    def overdue(self) -> tuple[int, str] | None:
        """Stamp of a tick that has waited for too long, and what for; in idle none has."""
        stamp_ns = self._stamp_ns
        if stamp_ns is None or self._gateway.mode is Mode.IDLE:
            return None
        if self._steady() - self._since < self._patience_s:
            return None
        return stamp_ns, self._frame if self._frame_ns < stamp_ns else "chunk"
