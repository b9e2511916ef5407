"""Writing small bags of the push task for tests, with rosbags only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rl100_contracts.episode import Outcome
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.task import NANOSECONDS, Task
from rl100_contracts.testing import make

START_NS = 1_000 * NANOSECONDS


def _cloud(stamp_ns: int, points: np.ndarray) -> bytes:
    store = ensure_type("sensor_msgs/msg/PointCloud2")
    field = store.types["sensor_msgs/msg/PointField"]
    data = points.astype("<f4").tobytes()
    return make(
        "sensor_msgs/msg/PointCloud2",
        stamp_ns,
        height=1,
        width=len(points),
        fields=[field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")],
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        data=np.frombuffer(data, dtype=np.uint8),
        is_dense=True,
    )


def camera_image(tick: int, seed: int = 0) -> np.ndarray:
    """What the colour camera sees at a tick: uint8 (96, 128, 3)."""
    rng = np.random.default_rng([seed, tick])
    return rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)


def _image(stamp_ns: int, pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        stamp_ns,
        height=height,
        width=width,
        encoding="rgb8",
        step=3 * width,
        data=pixels.reshape(-1),
    )


def write_bag(
    data: Path,
    name: str,
    task: Task,
    *,
    ticks: int = 12,
    outcome: Outcome = Outcome.SUCCESS,
    holds: tuple[int, ...] = (),
    seed: int = 0,
    label_tick: int | None = None,
    actions: Mapping[int, Sequence[float]] | None = None,
) -> Path:
    """Record one regular episode; at the ticks ``holds`` the gateway held.

    Args:
        actions: what is recorded as executed at these ticks instead of the regular actions.
    """
    rng = np.random.default_rng(seed)
    writer = EpisodeWriter(data, name, task)
    store = ensure_type("geometry_msgs/msg/PoseStamped")
    pose, point, quaternion = (
        store.types[f"geometry_msgs/msg/{kind}"] for kind in ("Pose", "Point", "Quaternion")
    )
    period = task.control.period_ns
    for tick in range(ticks):
        stamp = START_NS + tick * period
        tool = np.array([0.01 * tick, 0.02])
        points = rng.uniform(-0.1, 0.1, (task.observation.num_points, 3)).astype(np.float32)
        hold = tick in holds
        regular = np.zeros(2) if hold else np.array([0.01, 0.001 * tick])
        action = np.asarray((actions or {}).get(tick, regular), dtype=np.float32)
        types = {key: stream.type for key, stream in task.streams.items()}
        messages = {
            "joint_states": make(
                types["joint_states"],
                stamp,
                name=list(task.joint_names),
                position=np.array([0.1 * tick, 0.5]),
            ),
            "tool_pose": make(
                types["tool_pose"],
                stamp,
                pose=pose(
                    position=point(x=tool[0], y=tool[1], z=0.02),
                    orientation=quaternion(x=0.0, y=0.0, z=0.0, w=1.0),
                ),
            ),
            "points": _cloud(stamp, points),
            "depth": make("sensor_msgs/msg/Image", stamp),
            "color": _image(stamp, camera_image(tick, seed)),
            "camera_info": make(types["camera_info"], stamp),
            "executed_action": make(
                types["executed_action"],
                stamp,
                mode=1,
                source="scripted",
                hold=hold,
                chunk_index=tick % 4,
                chunk_sequence=tick // 4,
                action=action,
            ),
        }
        for stream in messages.keys() & task.streams.keys():
            message = messages[stream]
            writer.write(stream, stamp + 5, message)
    label_ns = None if label_tick is None else START_NS + label_tick * period
    writer.finish(outcome, "test", ticks, source="scripted", label_ns=label_ns)
    return data / name
