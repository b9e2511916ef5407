"""Where the tool was at the time of an image, from its stamped poses."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np

from rl100_contracts.decode import message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.pose import message_rotation
from rl100_perception.cloud import Pose


class NotYet(Exception):
    """What is asked for may still arrive."""


class ToolPoses:
    """The newest poses of one stream, interpolated between the two that enclose a time.

    The result depends on nothing but the stamps, so a bag gives the pose that was used live.

    Args:
        topic: for errors.
        max_age_ns: both poses must be this near to the time.
        keep: how many are held.
    """

    def __init__(self, topic: str, max_age_ns: int, keep: int) -> None:
        self._topic, self._max_age_ns, self._keep = topic, max_age_ns, keep
        self._stamps: list[int] = []
        self._poses: list[Any] = []

    def add(self, message: Any) -> None:
        """Add a PoseStamped; one that is older than the newest begins a new history."""
        stamp = message_stamp_ns(message)
        if self._stamps and stamp < self._stamps[-1]:
            self.clear()
        if self._stamps and stamp == self._stamps[-1]:
            return
        self._stamps.append(stamp)
        self._poses.append(message.pose)
        if len(self._stamps) > self._keep:
            del self._stamps[0], self._poses[0]

    def clear(self) -> None:
        """Forget all poses."""
        self._stamps.clear()
        self._poses.clear()

    def at(self, stamp_ns: int) -> Pose:
        """The tool's pose in the base frame at a time, ns.

        The position is linear between its neighbours, the rotation turns at a constant rate.

        Raises:
            NotYet: no pose is as new as that.
            ContractError: the poses around it are too far away, or not poses.
        """
        after = bisect_left(self._stamps, stamp_ns)
        if after == len(self._stamps):
            raise NotYet(f"no pose on {self._topic} that is as new as the image")
        if self._stamps[after] == stamp_ns:
            position, rotation = self._parts(after)
            return Pose(rotation.as_matrix(), position)
        if after == 0:
            raise ContractError(f"no pose on {self._topic} that is as old as the image")
        first, last = self._stamps[after - 1], self._stamps[after]
        if max(stamp_ns - first, last - stamp_ns) > self._max_age_ns:
            raise ContractError(
                f"no pose on {self._topic} within observation.max_skew_s of the image: are its "
                "stamps from another clock?"
            )
        (p0, r0), (p1, r1) = self._parts(after - 1), self._parts(after)
        share = (stamp_ns - first) / (last - first)
        turn = type(r0).from_rotvec(share * (r0.inv() * r1).as_rotvec())
        return Pose((r0 * turn).as_matrix(), p0 + share * (p1 - p0))

    def lag_ns(self, stamp_ns: int) -> int | None:
        """How much older than a time the newest pose is, ns; None without any."""
        return stamp_ns - self._stamps[-1] if self._stamps else None

    def _parts(self, index: int) -> tuple[np.ndarray, Any]:
        pose = self._poses[index]
        try:
            rotation = message_rotation(pose)
        except ContractError as error:
            raise ContractError(f"{self._topic}: {error}") from None
        p = pose.position
        position = np.array([p.x, p.y, p.z], dtype=np.float64)
        if not np.isfinite(position).all():
            raise ContractError(f"{self._topic}: the tool's position is not finite")
        return position, rotation
