"""Times the perception core and the same steps with Open3D, in turns, on one core.

``python -m rl100.bench.perception.core ROUNDS`` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100.bench.perception.scene import HEIGHT, NUM_POINTS, WIDTH, bench_task, depth_images
from rl100.open3d_extra import open3d_or_none
from rl100_contracts.decode import Intrinsics, decode_raw_depth
from rl100_contracts.task import Task
from rl100_perception.cloud import rotation_from_quaternion
from rl100_perception.pipeline import CloudPipeline
from rl100_perception.sampling import fps_sampling
from rl100_perception.view import View
from rl100_sim.world import ImageSize, camera_model

WARM_UP = 5
IMAGES = 10


def use_one_core() -> None:
    """Keep this process on the last core that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def message_of(depth: NDArray[np.uint16]) -> Any:
    """The image as it comes in a message: bytes."""
    return SimpleNamespace(
        encoding="16UC1",
        height=HEIGHT,
        width=WIDTH,
        step=2 * WIDTH,
        is_bigendian=0,
        data=depth.astype("<u2").tobytes(),
    )


def ours(task: Task, intrinsics: Intrinsics) -> Callable[[Any], int]:
    """Message to cloud with the perception core; gives how many points it chose from."""
    pipeline = CloudPipeline(task)

    def run(message: Any) -> int:
        view = View(decode_raw_depth(message), intrinsics)
        return pipeline.process({"table": view}).sampled_from

    return run


def with_open3d(o3d: Any, task: Task, intrinsics: Intrinsics) -> Callable[[Any], int]:
    """The same steps with Open3D's functions for them."""
    c, camera, spec = intrinsics, task.cameras["table"], task.cloud
    pinhole = o3d.camera.PinholeCameraIntrinsic(c.width, c.height, c.fx, c.fy, c.cx, c.cy)
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_quaternion(camera.quaternion_xyzw)
    pose[:3, 3] = camera.position
    extrinsic = np.linalg.inv(pose)
    box = o3d.geometry.AxisAlignedBoundingBox(np.array(spec.crop.low), np.array(spec.crop.high))

    def run(message: Any) -> int:
        depth = np.frombuffer(message.data, "<u2").reshape(HEIGHT, WIDTH)
        cloud = o3d.geometry.PointCloud.create_from_depth_image(
            o3d.geometry.Image(depth),
            pinhole,
            extrinsic,
            depth_scale=1.0 / camera.depth_scale,
            depth_trunc=camera.depth_range[1],
        ).crop(box)
        found = len(cloud.points)
        if found > spec.max_candidates:
            cloud = cloud.uniform_down_sample(-(-found // spec.max_candidates))
        chosen = np.asarray(cloud.farthest_point_down_sample(NUM_POINTS).points, np.float32)
        assert len(chosen) == NUM_POINTS
        return found

    return run


def measure(
    runners: dict[str, Callable[[Any], int]],
    messages: list[Any],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each runner, in turns, and how many points each chose from."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    points: dict[str, int] = {}
    for number in range(rounds + WARM_UP):
        message = messages[number % len(messages)]
        for name, run in runners.items():
            begin = clock()
            points[name] = run(message)
            if number >= WARM_UP:
                times[name].append((clock() - begin) * 1e3)
    return times, points


def main() -> None:
    """Measure and print."""
    use_one_core()
    rounds = int(sys.argv[1])
    task, whole = bench_task(), bench_task(whole_table=True)
    model = camera_model(task.cameras["table"], ImageSize(width=WIDTH, height=HEIGHT))
    lens = Intrinsics(WIDTH, HEIGHT, model.fx, model.fy, model.cx, model.cy)
    messages = [message_of(image) for image in depth_images(task, IMAGES)["table"]]
    # The core by itself first: after Open3D's work the caches are not as a node finds them.
    alone = {"box": ours(task, lens), "table": ours(whole, lens)}
    times, points = measure(alone, messages, rounds)
    o3d = open3d_or_none()
    if o3d is not None:
        turns = {
            "cpu_box": ours(task, lens),
            "cpu_box_open3d": with_open3d(o3d, task, lens),
            "cpu_table": ours(whole, lens),
            "cpu_table_open3d": with_open3d(o3d, whole, lens),
        }
        # The time of the processor, of all threads: another process that gets it for a while
        # would count for the one and not for the other.
        more, _ = measure(turns, messages, max(rounds // 5, 20), time.process_time)
        times |= more
    print(
        json.dumps(
            {
                "times_ms": times,
                "points": points,
                "open3d": getattr(o3d, "__version__", None),
                "fpsample": fps_sampling is not None,
            }
        )
    )


if __name__ == "__main__":
    main()
