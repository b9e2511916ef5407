"""``rl100 view`` and ``rl100 calibrate check`` against simulated cameras whose pose is known.

Pins: the check finds nothing where the task's camera is right, and the very error where it is
moved or turned, with exit status 1; the picture of the live cameras and that of a recorded episode
are written, and show the cloud that the policy gets; a camera that does not come is one sentence.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from run_command import rl100

from rl100.clouds import Look, recorded_looks
from rl100.session import Session
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100.view.scene import TYPICAL, box_edges, frustum, scene_of
from rl100_contracts.decode import decode_cloud, message_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.observation_spec import CropBox
from rl100_contracts.task import load_task
from rl100_perception.cloud import Pose

pytestmark = pytest.mark.integration
PNG = b"\x89PNG\r\n\x1a\n"


def moved(path: Path, shift: list[float], degrees: float) -> Path:
    """The push task with a camera that is elsewhere, turned about the middle of the table."""
    data = load_task("push").model_dump(mode="json")
    camera = data["cameras"]["table"]
    turn = Rotation.from_euler("y", degrees, degrees=True)
    rotation = turn * Rotation.from_quat(camera["quaternion_xyzw"])
    camera["quaternion_xyzw"] = rotation.as_quat().tolist()
    camera["position"] = (turn.apply(camera["position"]) + shift).tolist()
    path.write_text(yaml.safe_dump(data))
    return path


def figures(output: str) -> tuple[float, str, float, float]:
    """Offset, mm, side, tilt, degrees, and largest distance, mm."""
    found = re.search(
        r"seen ([\d.]+) mm (above|below) where it should be, tilted by ([\d.]+)°.*"
        r"off by up to ([\d.]+) mm",
        output,
    )
    assert found, output
    return float(found[1]), found[2], float(found[3]), float(found[4])


def test_the_check_finds_the_error_of_a_camera(tmp_path: Path) -> None:
    with RunningSystem(describe("sim", {"task": "push"}), log_dir=tmp_path / "logs"):
        picture = tmp_path / "check.png"
        code, output = rl100("calibrate", "check", "--task", "push", "--picture", picture)
        assert code == 0, output
        assert figures(output)[3] < 1.0
        assert picture.read_bytes().startswith(PNG) and picture.stat().st_size > 20_000

        off = moved(tmp_path / "low.yaml", [0.0, 0.0, -0.008], 0.0)
        code, output = rl100("calibrate", "check", "--task", off)
        assert code == 1 and "calibrate again" in output
        offset, side, tilt, _ = figures(output)
        assert (offset, side) == (pytest.approx(8.0, abs=0.5), "below") and tilt < 0.1
        assert rl100("calibrate", "check", "--task", off, "--tolerance", "9")[0] == 0
        assert rl100("calibrate", "check", "--task", off, "--table", "-8")[0] == 0

        code, output = rl100(
            "calibrate", "check", "--task", moved(tmp_path / "t.yaml", [0] * 3, 1.5)
        )
        _, _, tilt, largest = figures(output)
        assert code == 1 and tilt == pytest.approx(1.5, abs=0.1)
        # The crop box reaches from -0.35 to 0.30 m along x.
        assert largest == pytest.approx(np.tan(np.radians(1.5)) * 350, abs=0.8)

        live = tmp_path / "live.png"
        code, output = rl100("view", "--task", "push", "--out", live)
        assert code == 0 and "128 for the policy" in output, output
        assert live.read_bytes().startswith(PNG) and live.stat().st_size > 20_000


def test_cameras_that_do_not_come_are_named(tmp_path: Path) -> None:
    code, output = rl100("view", "--task", "push", "--out", tmp_path / "view.png")
    assert code == 2 and "nobody publishes /camera/depth/image_rect_raw" in output
    code, output = rl100("view", "--out", tmp_path / "view.png")
    assert code == 2 and "give --task" in output
    code, output = rl100("view", "--task", "push", "--out", tmp_path / "view.jpg")
    assert code == 2 and "ends in .png" in output


def test_an_episode_is_drawn_as_the_policy_saw_it(tmp_path: Path) -> None:
    task, data = load_task("push"), tmp_path / "data"
    nodes = describe("demo", {"task": "push", "data": str(data), "seed": "2"})
    with ExitStack() as stack:
        system = stack.enter_context(RunningSystem(nodes, log_dir=tmp_path / "logs"))
        session = stack.enter_context(Session(task, system.check))
        (result,) = session.run_episodes([2], record=True)
    episode = Path(result.path)
    looks = recorded_looks(episode, task)
    with EpisodeReader(episode, task) as reader:
        clouds = {message_stamp_ns(m): decode_cloud(m) for _, m in reader.messages(["points"])}
    shared = [look for look in looks if look.made.stamp_ns in clouds]
    assert len(shared) > 10
    for look in shared:
        scene = scene_of(task, look)
        np.testing.assert_array_equal(scene.sampled, clouds[look.made.stamp_ns])
        assert _inside(scene.cropped, task.cloud.crop)
    _check_camera(shared[0])
    picture = tmp_path / "episode.png"
    code, output = rl100("view", episode, "--at", "0.5", "--out", picture)
    assert code == 0 and picture.read_bytes().startswith(PNG), output
    code, output = rl100("view", episode, "--at", "99", "--out", picture)
    assert code == 2 and "give a smaller --at" in output


def _inside(points: np.ndarray, crop: CropBox) -> bool:
    return bool(((points >= np.float32(crop.low)) & (points <= np.float32(crop.high))).all())


def _check_camera(look: Look) -> None:
    """Every point of the cloud lies within the camera's frustum."""
    pose, lens = look.poses["table"], look.lenses["table"]
    seen = (look.made.result.cropped.xyz - pose.position) @ pose.rotation
    u = seen[:, 0] / seen[:, 2] * lens.fx + lens.cx
    v = seen[:, 1] / seen[:, 2] * lens.fy + lens.cy
    assert ((u > -1) & (u < lens.width) & (v > -1) & (v < lens.height)).all()


def test_boxes_and_frusta_are_where_they_should_be() -> None:
    edges = box_edges(CropBox(low=[0, 0, 0], high=[1, 2, 3], position=[5, 0, 0]))
    lengths = sorted(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1))
    assert lengths == pytest.approx([1] * 4 + [2] * 4 + [3] * 4)
    assert edges.reshape(-1, 3).min(axis=0) == pytest.approx([5, 0, 0])
    # A camera that looks along the base's x axis, its picture's right side to the base's -y.
    pose = Pose.of([0, 0, 1], Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat())
    rays = frustum(pose, TYPICAL, 2.0)[:4]
    assert rays[:, 0] == pytest.approx(np.tile([0, 0, 1], (4, 1)))
    assert rays[:, 1, 0] == pytest.approx([2.0] * 4)
    left_top = rays[0, 1]
    assert left_top[1] > 0 and left_top[2] > 1
