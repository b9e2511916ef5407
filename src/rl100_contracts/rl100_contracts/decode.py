"""Messages to NumPy, for live messages (rclpy) and for bags (rosbags) alike.

Both kinds of message objects have the same attributes, so one function serves both: what the
policy saw and what the trainer reads cannot differ.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.task import NANOSECONDS, ProprioceptionField, Role, Task

FloatArray = NDArray[np.float32]
FLOAT32_FIELD = 7  # sensor_msgs/PointField.FLOAT32


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time to int nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def split_ns(stamp_ns: int) -> tuple[int, int]:
    """Int nanoseconds to (sec, nanosec) of builtin_interfaces/Time."""
    return divmod(int(stamp_ns), NANOSECONDS)


def message_stamp_ns(msg: Any) -> int:
    """Header stamp of a message, ns."""
    return stamp_to_ns(msg.header.stamp)


def peek_stamp_ns(data: bytes | memoryview) -> int:
    """Header stamp (ns) of a serialized message whose first field is a std_msgs/Header.

    A CDR message starts with a 4-byte encapsulation header (second byte: 1 for little endian).

    Raises:
        ContractError: fewer bytes than such a message has.
    """
    if len(data) < 12:
        raise ContractError("a serialized message is too short to have a header")
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", data, 4)
    return int(sec) * NANOSECONDS + int(nanosec)


def decode_cloud(msg: Any) -> FloatArray:
    """PointCloud2 to points, float32 (N, 3), m, in the frame of the message.

    Raises:
        ContractError: no float32 x, y, z fields, big endian, or too few bytes.
    """
    offsets = {}
    for field in msg.fields:
        if field.name in ("x", "y", "z") and int(field.datatype) == FLOAT32_FIELD:
            offsets[field.name] = int(field.offset)
    if len(offsets) != 3:
        raise ContractError("a PointCloud2 without float32 fields x, y, z cannot be used")
    if msg.is_bigendian:
        raise ContractError("a big-endian PointCloud2 cannot be used")
    count, step = int(msg.width) * int(msg.height), int(msg.point_step)
    raw = np.frombuffer(msg.data, dtype=np.uint8)
    if raw.size < count * step or step < 12:
        raise ContractError(f"a PointCloud2 of {count} points has only {raw.size} bytes of data")
    if step == 12 and [offsets[axis] for axis in "xyz"] == [0, 4, 8]:
        return np.array(raw[: count * 12].view("<f4").reshape(count, 3), dtype=np.float32)
    rows = raw[: count * step].reshape(count, step)
    columns = [rows[:, offsets[a] : offsets[a] + 4].copy().view("<f4") for a in "xyz"]
    return np.concatenate(columns, axis=1).astype(np.float32)


def decode_depth(msg: Any, depth_scale: float) -> FloatArray:
    """Depth Image (16UC1 in units of ``depth_scale`` m, or 32FC1 in m) to float32 (H, W), m.

    Raises:
        ContractError: another encoding, or too few bytes.
    """
    kinds = {"16UC1": ("u2", depth_scale), "mono16": ("u2", depth_scale), "32FC1": ("f4", 1.0)}
    if msg.encoding not in kinds:
        raise ContractError(f"depth encoding '{msg.encoding}' is unknown: use 16UC1 or 32FC1")
    kind, scale = kinds[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    dtype = np.dtype((">" if msg.is_bigendian else "<") + kind)
    raw = np.frombuffer(msg.data, dtype=np.uint8)
    if step < width * dtype.itemsize or raw.size < height * step:
        raise ContractError(f"a {width}x{height} depth image has only {raw.size} bytes of data")
    rows = raw[: height * step].reshape(height, step)[:, : width * dtype.itemsize]
    values = np.ascontiguousarray(rows).view(dtype).reshape(height, width)
    return (values.astype(np.float32) * np.float32(scale)).astype(np.float32)


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera: image size in pixels, focal lengths and principal point in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


def decode_camera_info(msg: Any) -> Intrinsics:
    """CameraInfo to intrinsics.

    Raises:
        ContractError: not calibrated (focal length 0).
    """
    k = np.asarray(msg.k, dtype=float).reshape(3, 3)
    if k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ContractError("CameraInfo is not calibrated: its focal length is 0")
    return Intrinsics(int(msg.width), int(msg.height), k[0, 0], k[1, 1], k[0, 2], k[1, 2])


def _joint_values(part: ProprioceptionField, msg: Any) -> list[float]:
    values, names = getattr(msg, part.field), list(msg.name)
    missing = [name for name in part.names if name not in names]
    if missing:
        raise ContractError(f"joint '{missing[0]}' is not in the JointState of '{part.stream}'")
    if len(values) != len(names):
        raise ContractError(f"the JointState of '{part.stream}' has no {part.field} for each joint")
    return [float(values[names.index(name)]) for name in part.names]


def decode_proprioception(task: Task, stream: str, msg: Any) -> FloatArray:
    """The values that the policy reads from one message of a stream, float32 (k,), m or rad.

    Raises:
        ContractError: a joint or axis is missing.
    """
    values: list[float] = []
    for part in task.observation.proprioception:
        if part.stream != stream:
            continue
        if task.streams[stream].type == "sensor_msgs/msg/JointState":
            values += _joint_values(part, msg)
        else:
            values += [float(getattr(msg.pose.position, axis)) for axis in part.names]
    return np.asarray(values, dtype=np.float32)


def decode_feedback(task: Task, msg: Any) -> NDArray[np.float64]:
    """Measured position in the coordinates of the action, float64 (d,), m or rad.

    Raises:
        ContractError: a joint is missing in the message.
    """
    stream, names = task.action.feedback, task.action.names
    if task.streams[stream].type == "sensor_msgs/msg/JointState":
        part = ProprioceptionField(stream=stream, field="position", names=names)
        return np.asarray(_joint_values(part, msg), dtype=np.float64)
    return np.asarray([getattr(msg.pose.position, axis) for axis in names], dtype=np.float64)


@dataclass(frozen=True)
class ExecutedStep:
    """What the gateway did in one tick, see rl100_msgs/ExecutedAction."""

    stamp_ns: int
    mode: int
    source: str
    policy_version: str
    chunk_sequence: int
    chunk_index: int
    hold: bool
    action: FloatArray


def decode_executed(msg: Any) -> ExecutedStep:
    """ExecutedAction to ExecutedStep; ``action`` is float32 (d,), task units."""
    return ExecutedStep(
        message_stamp_ns(msg),
        int(msg.mode),
        str(msg.source),
        str(msg.policy_version),
        int(msg.chunk_sequence),
        int(msg.chunk_index),
        bool(msg.hold),
        np.asarray(msg.action, dtype=np.float32),
    )


def decode(task: Task, stream: str, msg: Any) -> FloatArray:
    """A message of an observed stream (proprioception or cloud) to its float32 array.

    Raises:
        ContractError: the stream is not observed, or the message does not fit.
    """
    role = task.streams[stream].role
    if role is Role.PROPRIOCEPTION:
        return decode_proprioception(task, stream, msg)
    if role is Role.CLOUD:
        return decode_cloud(msg)
    raise ContractError(f"stream '{stream}' ({role.value}) is not part of the observation")
