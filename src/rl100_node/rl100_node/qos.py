"""Quality of service of the topics, in one place so that publishers and subscribers fit."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from rl100_contracts.streams import Stream

LOCKSTEP_DEPTH = 64


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def qos_for(stream: Stream, lockstep: bool, *, latest_only: bool = False) -> QoSProfile:
    """QoS of a stream of the task, for its publisher and its subscribers.

    Args:
        stream: from ``task.streams``.
        lockstep: nothing may be lost, whatever the task says: reliable and deep.
        latest_only: a subscriber that wants the newest message only (ignored in lockstep).
    """
    if lockstep:
        return _profile(True, LOCKSTEP_DEPTH)
    return _profile(stream.qos == "reliable", 1 if latest_only else 10)


def command_qos() -> QoSProfile:
    """Chunks, commands, executed actions, reward events: none may be lost, new ones matter."""
    return _profile(True, LOCKSTEP_DEPTH)


def latched_qos(depth: int = 1) -> QoSProfile:
    """Status and episode events: who comes late gets the newest ``depth`` messages."""
    return _profile(True, depth, latched=True)


def episode_qos() -> QoSProfile:
    """``/rl100/episode``, publisher and subscribers."""
    return latched_qos(1)
