"""Whether an operator lets the policy move the robot. No ROS in here."""

from __future__ import annotations

from rl100_contracts.chunks import Chunk

NOT_ARMED = "not armed: an operator lets the policy move the robot (rl100 arm)"


class Arming:
    """Armed by an operator, and disarmed by whatever a person should look at first.

    Args:
        needed: False: the policy is always armed.

    Attributes:
        armed: whether the policy may move the robot.
        reason: why it may not, one sentence; empty when it may.
        restarts: how often the policy was started again.
    """

    def __init__(self, needed: bool) -> None:
        self._needed = needed
        self.armed, self.reason, self.restarts = True, "", 0
        self.disarm()

    def disarm(self, reason: str = NOT_ARMED) -> None:
        """The policy moves nothing until it is armed (again)."""
        self.armed = not self._needed
        self.reason = "" if self.armed else reason

    def arm(self) -> None:
        """An operator lets the policy move the robot."""
        self.armed, self.reason = True, ""

    def policy_restarted(self, old: Chunk, new: Chunk) -> None:
        """The policy began to count again: it runs what it was started with, not what was loaded.

        Args:
            old: the last chunk from before.
            new: the first one since.
        """
        self.restarts += 1
        if not self.armed:
            return
        before, now = old.policy_version, new.policy_version
        instead = "" if before == now else f" instead of {before}"
        self.disarm(f"the policy started again with {now}{instead}: arm it (rl100 arm)")
