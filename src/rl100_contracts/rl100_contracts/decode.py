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
from rl100_contracts.images import view_of
from rl100_contracts.observation_spec import ImageSpec, ProprioceptionField
from rl100_contracts.pixels import decode_pixels
from rl100_contracts.pose import AXES_6D, ToolCoordinates, axes_6d, message_rotation
from rl100_contracts.streams import JOINT_STATE, Role
from rl100_contracts.task import NANOSECONDS, Task

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]
RawDepth = NDArray[np.uint16] | NDArray[np.float32]
Sample = FloatArray | ImageArray
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
        ContractError: no float32 x, y, z fields, a field outside its point, big endian, or too few
            bytes.
    """
    offsets = {}
    for field in msg.fields:
        if field.name in ("x", "y", "z") and int(field.datatype) == FLOAT32_FIELD:
            offsets[field.name] = _offset(msg, field)
    if len(offsets) != 3:
        raise ContractError("a PointCloud2 without float32 fields x, y, z cannot be used")
    rows = _cloud_rows(msg)
    count, step = rows.shape
    if step == 12 and [offsets[axis] for axis in "xyz"] == [0, 4, 8]:
        return np.array(rows.reshape(-1).view("<f4").reshape(count, 3), dtype=np.float32)
    columns = [rows[:, offsets[a] : offsets[a] + 4].copy().view("<f4") for a in "xyz"]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _offset(msg: Any, field: Any) -> int:
    """Where the four bytes of a field begin in each point."""
    offset, step = int(field.offset), int(msg.point_step)
    if not 0 <= offset <= step - 4:
        raise ContractError(
            f"a PointCloud2 cannot be used whose field {field.name} at byte {offset} is not within "
            f"its points of {step} bytes"
        )
    return offset


def _cloud_rows(msg: Any) -> NDArray[np.uint8]:
    """The bytes of a PointCloud2, uint8 (N, point_step); rows may be padded."""
    if msg.is_bigendian:
        raise ContractError("a big-endian PointCloud2 cannot be used")
    width, height, step = int(msg.width), int(msg.height), int(msg.point_step)
    row_step = int(msg.row_step) if height > 1 else width * step
    raw = np.frombuffer(msg.data, dtype=np.uint8)
    if raw.size < height * row_step or step < 12 or row_step < width * step:
        raise ContractError(
            f"a PointCloud2 of {width * height} points has only {raw.size} bytes of data"
        )
    if not width * height:  # its other side may be larger than an array's
        return np.empty((0, step), dtype=np.uint8)
    rows = raw[: height * row_step].reshape(height, row_step)[:, : width * step]
    return np.ascontiguousarray(rows).reshape(width * height, step)


def decode_cloud_colours(msg: Any) -> ImageArray:
    """Colours of a PointCloud2's points, uint8 (N, 3), red first.

    Raises:
        ContractError: no field ``rgb`` or ``rgba`` of four bytes, or as for ``decode_cloud``.
    """
    for field in msg.fields:
        if field.name in ("rgb", "rgba"):
            offset = _offset(msg, field)
            return _cloud_rows(msg)[:, offset : offset + 3][:, ::-1].copy()
    raise ContractError("a PointCloud2 without a field rgb has no colours for observation.cloud")


def decode_depth(msg: Any, depth_scale: float) -> FloatArray:
    """Depth Image (16UC1 in units of ``depth_scale`` m, or 32FC1 in m) to float32 (H, W), m.

    Raises:
        ContractError: another encoding, or too few bytes.
    """
    return depth_in_metres(decode_raw_depth(msg), depth_scale)


def depth_in_metres(raw: RawDepth, depth_scale: float) -> FloatArray:
    """Depths as an image holds them to float32, m; whole numbers are units of ``depth_scale`` m."""
    metres = raw.astype(np.float32)
    return metres if raw.dtype.kind == "f" else np.multiply(metres, np.float32(depth_scale))


def decode_raw_depth(msg: Any) -> RawDepth:
    """Depth Image to the numbers that it holds: uint16 (16UC1) or float32 (32FC1), (H, W).

    Raises:
        ContractError: another encoding, or too few bytes.
    """
    kinds = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
    if msg.encoding not in kinds:
        raise ContractError(f"depth encoding '{msg.encoding}' is unknown: use 16UC1 or 32FC1")
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    dtype = np.dtype((">" if msg.is_bigendian else "<") + kinds[msg.encoding])
    raw = np.frombuffer(msg.data, dtype=np.uint8)
    if step < width * dtype.itemsize or raw.size < height * step:
        raise ContractError(f"a {width}x{height} depth image has only {raw.size} bytes of data")
    rows = raw[: height * step].reshape(height, step)[:, : width * dtype.itemsize]
    values = np.ascontiguousarray(rows).view(dtype).reshape(height, width)
    return values.astype(dtype.newbyteorder("="), copy=False)


def decode_image(msg: Any, spec: ImageSpec) -> ImageArray:
    """Colour image, raw or compressed, to what the policy sees: RGB, uint8 (height, width, 3).

    Raises:
        ContractError: see ``decode_pixels``, or fewer pixels than the task asks for.
    """
    return view_of(decode_pixels(msg), spec)


@dataclass(frozen=True)
class Intrinsics:
    """A camera: image size in pixels, focal lengths and principal point in pixels, distortion.

    ``distortion_model`` is as in CameraInfo and empty for a pinhole; ``distortion`` are its
    coefficients.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = ""
    distortion: tuple[float, ...] = ()


def decode_camera_info(msg: Any, *, rectified: bool = False) -> Intrinsics:
    """CameraInfo to intrinsics.

    Args:
        rectified: the images are rectified, so that P describes them and they have no distortion.

    Raises:
        ContractError: not calibrated (focal length 0), or a coefficient is not finite.
    """
    width, height = int(msg.width), int(msg.height)
    k = np.asarray(msg.p, dtype=float).reshape(3, 4) if rectified else np.asarray(msg.k, float)
    k = k[:, :3] if rectified else k.reshape(3, 3)
    if not (k[0, 0] > 0 and k[1, 1] > 0 and np.isfinite(k).all()):
        raise ContractError("CameraInfo is not calibrated: its focal length is 0")
    distortion = tuple(float(value) for value in msg.d)
    pinhole = (width, height, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
    if rectified or not any(distortion):
        return Intrinsics(*pinhole)
    if not np.isfinite(distortion).all():
        raise ContractError("CameraInfo has a coefficient of its distortion that is not finite")
    return Intrinsics(*pinhole, str(msg.distortion_model), distortion)


def _joint_values(task: Task, part: ProprioceptionField, msg: Any) -> list[float]:
    values, names = getattr(msg, part.field), list(msg.name)
    missing = [name for name in part.names if name not in names]
    topic = task.streams[part.stream].topic
    if missing:
        raise ContractError(
            f"joint '{missing[0]}' is not in the JointState on {topic}: it has "
            f"{', '.join(names) or 'no joint'}"
        )
    if len(values) != len(names):
        raise ContractError(f"the JointState on {topic} has no {part.field} for each joint")
    return [float(values[names.index(name)]) for name in part.names]


def _pose_values(task: Task, part: ProprioceptionField, msg: Any) -> list[float]:
    if part.field == "position":
        return [float(getattr(msg.pose.position, axis)) for axis in part.names]
    try:
        if part.field == "rotation_6d":
            axes = axes_6d(message_rotation(msg.pose))
            return [float(axes[AXES_6D.index(name)]) for name in part.names]
        nominal = task.action.quaternion_xyzw
        return ToolCoordinates(part.names, None, nominal).of_message(msg.pose).tolist()
    except ContractError as error:
        raise ContractError(f"stream '{part.stream}': {error}") from None


def decode_proprioception(task: Task, stream: str, msg: Any) -> FloatArray:
    """The values that the policy reads from one message of a stream, float32 (k,), m or rad.

    Raises:
        ContractError: a joint is missing, or an orientation is not a unit quaternion.
    """
    values: list[float] = []
    for part in task.observation.proprioception:
        if part.stream != stream:
            continue
        if task.streams[stream].type == JOINT_STATE:
            values += _joint_values(task, part, msg)
        else:
            values += _pose_values(task, part, msg)
    return np.asarray(values, dtype=np.float32)


def decode_joints(task: Task, msg: Any) -> NDArray[np.float64]:
    """Measured joints, float64 (n,), rad or m, in the order of the task's ``joint_names``.

    Raises:
        ContractError: a joint is missing in the message, or a value is not finite.
    """
    stream = task.robot.joint_states if task.robot else task.action.feedback
    part = ProprioceptionField(stream=stream, field="position", names=task.joint_names)
    joints = np.asarray(_joint_values(task, part, msg), dtype=np.float64)
    if not np.isfinite(joints).all():
        raise ContractError(f"the JointState of '{stream}' has a value that is not finite")
    return joints


def decode_feedback(task: Task, msg: Any) -> NDArray[np.float64]:
    """Measured position in the coordinates of the action, float64 (d,), m or rad.

    Raises:
        ContractError: a joint is missing in the message, or its orientation is not a unit
            quaternion.
    """
    stream, names = task.action.feedback, task.action.names
    if task.streams[stream].type == JOINT_STATE:
        part = ProprioceptionField(stream=stream, field="position", names=names)
        return np.asarray(_joint_values(task, part, msg), dtype=np.float64)
    try:
        return task.action.coordinates.of_message(msg.pose)
    except ContractError as error:
        raise ContractError(f"stream '{stream}': {error}") from None


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


def decode(task: Task, stream: str, msg: Any) -> Sample:
    """A message of an observed stream to its array: float32, or uint8 for an image.

    Raises:
        ContractError: the stream is not observed, or the message does not fit.
    """
    role = task.streams[stream].role
    if role is Role.PROPRIOCEPTION:
        return decode_proprioception(task, stream, msg)
    if role is Role.CLOUD:
        return decode_cloud(msg)
    image = task.observation.image
    if image is not None and stream == image.stream:
        return decode_image(msg, image)
    raise ContractError(f"stream '{stream}' ({role.value}) is not part of the observation")
