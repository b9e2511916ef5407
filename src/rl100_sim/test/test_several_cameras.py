"""A simulated robot with several depth cameras.

Pins: each sees from its own pose, with noise of its own that depends on seed and time only, and
the first one's images are those that it gives alone; a camera that cannot be simulated is one
sentence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_sim.world import PushWorld, SensorNoise


def task(**second: Any) -> Task:
    """The push task with a second camera, on the other side of the table."""
    data = load_task("push").model_dump(mode="json")
    for name in ("depth", "camera_info"):
        data["streams"][f"{name}_2"] = {**data["streams"][name], "topic": f"/second/{name}"}
    x, y, z, w = data["cameras"]["table"]["quaternion_xyzw"]
    data["cameras"]["second"] = {
        **data["cameras"]["table"],
        "depth": "depth_2",
        "camera_info": "camera_info_2",
        "position": [-0.62, 0.0, 0.62],
        "quaternion_xyzw": [-y, x, w, -z],
        **second,
    }
    return Task.model_validate(data)


def test_both_see_the_block_where_it_is() -> None:
    world = PushWorld(task(), noise=SensorNoise(depth=None))
    world.reset(3)
    block = world.truth().block_position
    for name, camera in world.cameras.items():
        points = camera.deproject(world.depth(name))
        top = points[np.abs(points[:, 2] - 2 * block[2]) < 0.003]
        near = top[np.linalg.norm(top[:, :2] - block[:2], axis=1) < 0.05]
        assert len(near) > 20, name
        # The camera is a little off its stated pose, as in every episode.
        assert np.linalg.norm(near[:, :2].mean(axis=0) - block[:2]) < 0.012


def test_the_first_camera_sees_what_it_sees_alone() -> None:
    both, alone = PushWorld(task()), PushWorld(load_task("push"))
    for world in (both, alone):
        world.reset(5)
    np.testing.assert_array_equal(both.depth("table"), alone.depth())
    np.testing.assert_array_equal(both.depth(), alone.depth())
    first = both.depth("second")
    both.reset(5)
    np.testing.assert_array_equal(both.depth("second"), first)


@pytest.mark.parametrize(
    "second",
    [
        {"mount": "tool", "tool_pose": "tool_pose"},
        {"depth": None, "camera_info": None, "points": "camera_points"},
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(second: dict[str, Any]) -> None:
    data = task().model_dump(mode="json")
    data["streams"]["camera_points"] = {
        "topic": "/second/points",
        "type": "sensor_msgs/msg/PointCloud2",
        "role": "cloud",
    }
    data["cameras"]["second"] |= second
    with pytest.raises(ContractError, match="camera 'second' cannot be simulated: give it a depth"):
        PushWorld(Task.model_validate(data))
