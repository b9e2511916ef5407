"""Where the cameras of a cloud were, for whoever looks at it.

Pins: a camera on the tool is where the tool was at its image's stamp, between two poses; one that
stands still is where the task says; intrinsics are those of the camera info.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from rl100.clouds import Looker
from rl100.view.scene import scene_of
from rl100_contracts.task import Task, load_task

MS = 1_000_000
START = 5_000 * MS


def header(stamp_ns: int) -> Any:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id="wrist")


def on_the_tool(mount: str) -> Task:
    data = load_task("push").model_dump(mode="json")
    camera = data["cameras"]["table"]
    if mount == "tool":
        camera |= {"mount": "tool", "tool_pose": "tool_pose", "position": [0.0, 0.0, 0.1]}
        camera["quaternion_xyzw"] = [1.0, 0.0, 0.0, 0.0]  # looks along the tool's -z
    return Task.model_validate(data)


def image(stamp_ns: int) -> Any:
    pixels = np.full((48, 64), 550, "<u2")
    return SimpleNamespace(
        header=header(stamp_ns), encoding="16UC1", height=48, width=64, step=128,
        is_bigendian=0, data=pixels.tobytes(),
    )  # fmt: skip


def info() -> Any:
    k = [60.0, 0.0, 32.0, 0.0, 61.0, 24.0, 0.0, 0.0, 1.0]
    return SimpleNamespace(
        header=header(START), height=48, width=64, k=k, d=[], p=[0.0] * 12, distortion_model=""
    )


def pose(stamp_ns: int, x: float, turn: Rotation) -> Any:
    q = turn.as_quat()
    return SimpleNamespace(
        header=header(stamp_ns),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=x, y=0.0, z=0.5),
            orientation=SimpleNamespace(x=q[0], y=q[1], z=q[2], w=q[3]),
        ),
    )


def test_a_camera_on_the_tool_moves_with_it() -> None:
    looker = Looker(on_the_tool("tool"))
    assert set(looker.streams) == {"depth", "camera_info", "tool_pose"}
    quarter = Rotation.from_euler("z", 90, degrees=True)
    looker.add("camera_info", info())
    looker.add("tool_pose", pose(START, 0.0, quarter))
    looker.add("depth", image(START + 10 * MS))
    assert not looker.looks  # nobody knows yet where the tool is going
    looker.add("tool_pose", pose(START + 40 * MS, 0.2, quarter))
    (look,) = looker.looks
    # A quarter of the way; 0.1 m above the tool, looking down, its right to the base's y axis.
    found = look.poses["table"]
    np.testing.assert_allclose(found.position, [0.05, 0.0, 0.6], atol=1e-9)
    np.testing.assert_allclose(found.rotation @ [0, 0, 1], [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(found.rotation @ [1, 0, 0], [0, 1, 0], atol=1e-9)
    assert look.lenses["table"].fy == 61.0
    # The image shows a plane 0.55 m below the camera: all its points are at z = 0.05.
    np.testing.assert_allclose(look.made.result.points[:, 2], 0.05, atol=1e-6)
    scene = scene_of(on_the_tool("tool"), look)
    np.testing.assert_allclose(scene.cameras["table"][0, 0], [0.05, 0.0, 0.6], atol=1e-9)
    assert "128 for the policy" in scene.title


def test_a_camera_that_stands_still_needs_no_tool() -> None:
    task = on_the_tool("fixed")
    looker = Looker(task)
    assert set(looker.streams) == {"depth", "camera_info"}
    looker.add("camera_info", info())
    looker.add("depth", image(START))
    # It needs no pose to say that a plane 0.55 m in front of it is above the crop box.
    assert not looker.looks
    assert "no point lies in the crop box" in looker.problem
