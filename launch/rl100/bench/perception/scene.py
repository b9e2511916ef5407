"""What the benchmark ``perception`` looks at: the simulated table, in 640x480 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.task import Task, load_task
from rl100_sim.world import ImageSize, PushWorld

WIDTH, HEIGHT = 640, 480
NUM_POINTS = 1024
# Below the table's surface: then all of the table is in the crop box.
BELOW_TABLE_M = -0.02
# Of the second camera, which looks from the other side; cameras run freely against each other.
FAR_POSITION = [-0.62, 0.0, 0.62]


def bench_task(*, cameras: int = 1, rate_hz: float = 30.0, whole_table: bool = False) -> Task:
    """The push task with one or two cameras, 1,024 points, and no more than perception needs."""
    data: dict[str, Any] = load_task("push").model_dump(mode="json")
    data["observation"]["cloud"]["num_points"] = NUM_POINTS
    if whole_table:
        data["observation"]["cloud"]["crop"]["low"][2] = BELOW_TABLE_M
    for stream in ("depth", "camera_info", "points"):
        data["streams"][stream]["rate_hz"] = rate_hz
        data["streams"][stream]["qos"] = "sensor"
    if cameras == 2:
        table = data["cameras"]["table"]
        for stream in ("depth", "camera_info"):
            second = {**data["streams"][stream], "topic": f"/far/{stream}"}
            data["streams"][f"{stream}_far"] = second
        x, y, z, w = table["quaternion_xyzw"]
        data["cameras"]["far"] = {
            **table,
            "depth": "depth_far",
            "camera_info": "camera_info_far",
            "position": FAR_POSITION,
            "quaternion_xyzw": [-y, x, w, -z],  # half a turn about the base's z axis
        }
        data["observation"]["cloud"]["max_camera_skew_s"] = 0.49 / rate_hz
    return Task.model_validate(data)


def depth_images(task: Task, count: int) -> dict[str, list[NDArray[np.uint16]]]:
    """``count`` depth images (480, 640), mm, of each camera, from different start states."""
    world = PushWorld(task, image=ImageSize(width=WIDTH, height=HEIGHT))
    images: dict[str, list[NDArray[np.uint16]]] = {name: [] for name in task.cameras}
    for seed in range(count):
        world.reset(seed)
        for name, seen in images.items():
            seen.append(world.depth(name))
    return images
