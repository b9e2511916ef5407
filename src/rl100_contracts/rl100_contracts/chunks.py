"""Action chunks: future actions with the times at which they should be executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import message_stamp_ns, split_ns, stamp_to_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task

MAX_CHUNK = 256


@dataclass(frozen=True)
class Chunk:
    """n future actions of one decision.

    Attributes:
        sequence: counts the chunks of one publisher.
        source: publisher, e.g. "policy", "keyboard".
        policy_version: bundle version, empty for teleoperation.
        observation_ns: stamp of the newest observation used, ns.
        stamps_ns: int64 (n,), when each action becomes the target, strictly increasing.
        actions: float32 (n, d), task units.
        expires_ns: no action is started after it.
        observation_digest: of the observation tensors (Observation.digest); 0: none.
    """

    sequence: int
    source: str
    policy_version: str
    observation_ns: int
    stamps_ns: NDArray[np.int64]
    actions: NDArray[np.float32]
    expires_ns: int
    observation_digest: int = 0


def check_chunk(chunk: Chunk, task: Task) -> None:
    """Refuse a chunk that cannot be executed.

    Raises:
        ContractError: wrong shape, no actions, not finite, stamps not increasing, expired early.
    """
    count = len(chunk.stamps_ns)
    where = f"chunk {chunk.sequence} of '{chunk.source}'"
    if chunk.actions.ndim != 2 or chunk.actions.shape[1] != task.action.dim:
        raise ContractError(
            f"{where} has actions of shape {chunk.actions.shape}, the task expects "
            f"(n, {task.action.dim})"
        )
    if count != chunk.actions.shape[0]:
        raise ContractError(f"{where} has {chunk.actions.shape[0]} actions but {count} stamps")
    if not 1 <= count <= MAX_CHUNK:
        raise ContractError(f"{where} has {count} actions, allowed are 1 to {MAX_CHUNK}")
    if not np.isfinite(chunk.actions).all():
        raise ContractError(f"{where} has an action that is not finite")
    if count > 1 and (np.diff(chunk.stamps_ns) <= 0).any():
        raise ContractError(f"{where} has stamps that do not increase")
    if chunk.expires_ns < chunk.stamps_ns[0]:
        raise ContractError(f"{where} expires before its first action")


def chunk_from_message(msg: Any, task: Task) -> Chunk:
    """rl100_msgs/ActionChunk to a checked Chunk.

    Raises:
        ContractError: see ``check_chunk``.
    """
    dim = int(msg.action_dim)
    flat = np.asarray(msg.actions, dtype=np.float32)
    if dim < 1 or flat.size % dim:
        raise ContractError(
            f"chunk {msg.sequence} of '{msg.source}' has {flat.size} values for actions of {dim}"
        )
    chunk = Chunk(
        int(msg.sequence),
        str(msg.source),
        str(msg.policy_version),
        message_stamp_ns(msg),
        np.asarray([stamp_to_ns(stamp) for stamp in msg.action_stamps], dtype=np.int64),
        flat.reshape(-1, dim),
        stamp_to_ns(msg.expires),
        int(msg.observation_digest),
    )
    check_chunk(chunk, task)
    return chunk


def fill_message(msg: Any, chunk: Chunk, frame_id: str, time_type: Any) -> Any:
    """Write a chunk into an rl100_msgs/ActionChunk and return it.

    Args:
        msg: the message to fill.
        chunk: what to write.
        frame_id: base frame for Cartesian spaces, empty for joints.
        time_type: the class builtin_interfaces.msg.Time (kept out of this ROS-free package).
    """
    msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(chunk.observation_ns)
    msg.header.frame_id = frame_id
    msg.sequence, msg.source = chunk.sequence, chunk.source
    msg.policy_version = chunk.policy_version
    msg.observation_digest = chunk.observation_digest
    msg.action_dim = int(chunk.actions.shape[1])
    msg.actions = np.ascontiguousarray(chunk.actions, dtype=np.float32).ravel().tolist()
    msg.action_stamps = [
        time_type(sec=sec, nanosec=nanosec) for sec, nanosec in map(split_ns, chunk.stamps_ns)
    ]
    msg.expires.sec, msg.expires.nanosec = split_ns(chunk.expires_ns)
    return msg
