"""Tasks with several cameras, and their messages as a bag gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from rl100_contracts.decode import Intrinsics, split_ns
from rl100_contracts.task import Task, load_task

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
INTRINSICS = Intrinsics(32, 24, 30.0, 30.0, 15.5, 11.5)


def task(
    *, second: bool = False, tool: bool = False, colour: bool = False, **cloud: object
) -> Task:
    """The push task with a camera that looks down, and a second camera, a camera that moves with
    the tool, or colours."""
    data = load_task("push").model_dump(mode="json")
    data["observation"]["cloud"] |= {
        "num_points": 64,
        "crop": {"low": [-2.0, -2.0, -1.0], "high": [2.0, 2.0, 0.5]},
        **cloud,
    }
    table = data["cameras"]["table"]
    table |= {"position": [0.1, -0.2, 1.0], "quaternion_xyzw": [1.0, 0.0, 0.0, 0.0]}
    streams = data["streams"]
    if second:
        for name, kind in (("depth", "Image"), ("camera_info", "CameraInfo")):
            streams[f"{name}_2"] = {
                "topic": f"/second/{name}",
                "type": f"sensor_msgs/msg/{kind}",
                "role": name,
                "rate_hz": 15.0,
            }
        data["cameras"]["second"] = {
            **table,
            "depth": "depth_2",
            "camera_info": "camera_info_2",
            "position": [0.4, 0.0, 1.0],
        }
    if tool:
        table |= {"mount": "tool", "tool_pose": "tool_pose"}
    if colour:
        streams["color"] = {
            "topic": "/camera/color/image",
            "type": "sensor_msgs/msg/Image",
            "role": "image",
        }
        table["color"] = "color"
        data["observation"]["cloud"]["color"] = True
    return Task.model_validate(data)


def points_task() -> Task:
    """``task`` with a camera that gives points with colours in place of depth images."""
    data = task().model_dump(mode="json")
    data["observation"]["cloud"]["color"] = True
    data["streams"]["camera_points"] = {
        "topic": "/camera/points",
        "type": "sensor_msgs/msg/PointCloud2",
        "role": "cloud",
    }
    table = data["cameras"]["table"]
    table |= {"depth": None, "camera_info": None, "points": "camera_points"}
    return Task.model_validate(data)


def points(stamp_ns: int, xyz: np.ndarray, colours: np.ndarray) -> Any:
    """A PointCloud2 of points (n, 3), m, and colours (n, 3), in points of 32 bytes as PCL has."""
    rows = np.zeros((len(xyz), 32), np.uint8)
    rows[:, :12] = np.ascontiguousarray(xyz, "<f4").view(np.uint8).reshape(-1, 12)
    rows[:, 16:19] = colours[:, ::-1]
    field = TYPES["sensor_msgs/msg/PointField"]
    fields = [field(name, 4 * i, 7, 1) for i, name in enumerate("xyz")]
    fields.append(field("rgb", 16, 7, 1))
    header = _header(stamp_ns, "camera_depth_optical_frame")
    size = len(xyz)
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header, 1, size, fields, False, 32, 32 * size, rows.ravel(), False
    )


def _header(stamp_ns: int, frame: str) -> Any:
    seconds, nanoseconds = split_ns(stamp_ns)
    stamp = TYPES["builtin_interfaces/msg/Time"](seconds, nanoseconds)
    return TYPES["std_msgs/msg/Header"](stamp, frame)


def depth(stamp_ns: int, seed: int = 0, encoding: str = "16UC1") -> Any:
    """A depth image of random millimetres."""
    rows = np.random.default_rng([seed, stamp_ns]).integers(500, 1200, (24, 32))
    header = _header(stamp_ns, "camera_depth_optical_frame")
    data = np.frombuffer(rows.astype("<u2").tobytes(), np.uint8)
    return TYPES["sensor_msgs/msg/Image"](header, 24, 32, encoding, 0, 64, data)


def colour(stamp_ns: int, width: int = 32) -> Any:
    """A colour image whose red is the place in the row."""
    rows = np.zeros((24, width, 3), np.uint8)
    rows[:, :, 0] = np.arange(width)
    header = _header(stamp_ns, "camera_depth_optical_frame")
    return TYPES["sensor_msgs/msg/Image"](header, 24, width, "rgb8", 0, 3 * width, rows.ravel())


def info(stamp_ns: int = 1, model: str = "plumb_bob", distortion: tuple[float, ...] = ()) -> Any:
    """The camera info of all cameras here."""
    c = INTRINSICS
    k = np.array([c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0])
    p = np.zeros(12)
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        _header(stamp_ns, "camera_depth_optical_frame"),
        c.height,
        c.width,
        model,
        np.array(distortion, np.float64),
        k,
        np.eye(3).ravel(),
        p,
        0,
        0,
        region,
    )


def pose(stamp_ns: int, position: tuple[float, float, float], xyzw: tuple[float, ...]) -> Any:
    """A pose of the tool."""
    point = TYPES["geometry_msgs/msg/Point"](*position)
    turn = TYPES["geometry_msgs/msg/Quaternion"](*xyzw)
    made = TYPES["geometry_msgs/msg/Pose"](point, turn)
    return TYPES["geometry_msgs/msg/PoseStamped"](_header(stamp_ns, "base_link"), made)


def moving_pose(stamp_ns: int) -> Any:
    """Where a tool is that moves at 0.2 m/s and turns at 0.5 rad/s."""
    t = stamp_ns * 1e-9
    half = 0.25 * t
    xyzw = (0.0, 0.0, float(np.sin(half)), float(np.cos(half)))
    return pose(stamp_ns, (0.2 * t, 0.0, 0.0), xyzw)
