"""Clouds of two simulated cameras through real processes, and made again from the recorded bag.

Pins: every cloud that perception published is, bit for bit, what the bag's depth images give;
``rl100 episodes parity`` says so; with another pose of a camera it finds that all differ.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rl100.episodes_cli import app
from rl100.parity import check_clouds
from rl100.session import Session
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.decode import decode_cloud, message_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.task import Task, load_task

pytestmark = pytest.mark.integration

SEED = 5


def two_cameras() -> Task:
    """The push task with a second camera on the other side of the table, in a turned crop box."""
    data = load_task("push").model_dump(mode="json")
    for name, kind in (("depth", "Image"), ("camera_info", "CameraInfo")):
        data["streams"][f"{name}_far"] = {
            **data["streams"][name],
            "topic": f"/far/{name}",
            "type": f"sensor_msgs/msg/{kind}",
        }
    table = data["cameras"]["table"]
    x, y, z, w = table["quaternion_xyzw"]
    data["cameras"]["far"] = {
        **table,
        "depth": "depth_far",
        "camera_info": "camera_info_far",
        "frame": "far_depth_optical_frame",
        "position": [-0.62, 0.0, 0.62],
        "quaternion_xyzw": [-y, x, w, -z],  # turned by half a turn about the base's z axis
    }
    data["observation"]["cloud"]["crop"]["quaternion_xyzw"] = [0.0, 0.0, 0.0998334, 0.9950042]
    return Task.model_validate(data)


def test_a_bag_gives_the_clouds_of_two_cameras(tmp_path: Path) -> None:
    task, data, path = two_cameras(), tmp_path / "data", tmp_path / "two.yaml"
    path.write_text(task.to_yaml())
    nodes = describe("demo", {"task": str(path), "data": str(data), "seed": str(SEED)})
    with ExitStack() as stack:
        system = stack.enter_context(RunningSystem(nodes, log_dir=tmp_path / "logs"))
        session = stack.enter_context(Session(task, system.check))
        (result,) = session.run_episodes([SEED], record=True)
    episode = Path(result.path)
    parity = check_clouds(episode, task)
    assert parity.compared >= 10 and not parity.different
    with EpisodeReader(episode, task) as reader:
        clouds = {message_stamp_ns(m): decode_cloud(m) for _, m in reader.messages(["points"])}
    assert parity.compared >= len(clouds) - 1
    # The second camera has its part in them: it sees the side of the block that is turned away.
    alone = task.model_copy(update={"cameras": {"table": task.cameras["table"]}})
    assert len(check_clouds(episode, alone).different) == parity.compared

    told = CliRunner().invoke(app, ["parity", str(data), "--task", str(path)])
    assert f"{parity.compared} of {parity.compared} clouds, made again from" in told.stdout
    assert told.exit_code == 0

    moved = task.cameras["far"].model_copy(update={"position": [-0.621, 0.0, 0.62]})
    other = task.model_copy(update={"cameras": {**task.cameras, "far": moved}})
    assert len(check_clouds(episode, other).different) == parity.compared
    assert all(np.isfinite(cloud).all() for cloud in clouds.values())
