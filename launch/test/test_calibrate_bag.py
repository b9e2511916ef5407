"""``rl100 calibrate camera --from`` a bag: views are taken where the robot stood still.

Pins: the camera comes out to 1 mm and 0.1 degrees; nothing is taken while the robot moves; what a
bag lacks is one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from fake_rig import LENS
from rosbags.rosbag2 import StoragePlugin, Writer
from run_command import rl100
from scipy.spatial.transform import Rotation

from rl100_contracts.calibration import Board, load_calibration
from rl100_contracts.decode import split_ns
from rl100_contracts.interfaces import typestore
from rl100_contracts.task import load_task
from rl100_perception.calibration.boards import BoardDetector
from rl100_perception.calibration.hand_eye import difference
from rl100_perception.calibration.lens import Lens
from rl100_perception.calibration.rendering import Rig
from rl100_perception.calibration.views import load_views

IMAGE, INFO, POSE = "/camera/color/image_raw", "/camera/color/camera_info", "/tool_pose"
STORE = typestore()
T = STORE.types
MS = 1_000_000
STOPS = 9


def header(stamp_ns: int, frame: str) -> Any:
    sec, nanosec = split_ns(stamp_ns)
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](sec, nanosec), frame)


def image(stamp_ns: int, pixels: np.ndarray) -> Any:
    height, width = pixels.shape
    frame = header(stamp_ns, "color_optical")
    return T["sensor_msgs/msg/Image"](frame, height, width, "mono8", 0, width, pixels.ravel())


def info(stamp_ns: int) -> Any:
    k = np.array([LENS.fx, 0, LENS.cx, 0, LENS.fy, LENS.cy, 0, 0, 1.0])
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return T["sensor_msgs/msg/CameraInfo"](
        header(stamp_ns, "color_optical"), LENS.height, LENS.width, "plumb_bob",
        np.array(LENS.distortion), k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi,
    )  # fmt: skip


def pose(stamp_ns: int, tool: np.ndarray) -> Any:
    point = T["geometry_msgs/msg/Point"](*(float(v) for v in tool[:3, 3]))
    turn = Rotation.from_matrix(tool[:3, :3]).as_quat()
    made = T["geometry_msgs/msg/Pose"](point, T["geometry_msgs/msg/Quaternion"](*map(float, turn)))
    return T["geometry_msgs/msg/PoseStamped"](header(stamp_ns, "base_link"), made)


def jpeg(stamp_ns: int, pixels: np.ndarray) -> Any:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel()
    return T["sensor_msgs/msg/CompressedImage"](header(stamp_ns, "color_optical"), "jpeg", data)


def record(
    path: Path, rig: Rig, *, without: str = "", compressed: bool = False, stops: int = STOPS
) -> None:
    """A bag in which the robot stops at some poses; pictures come while it moves, too."""
    image_topic = IMAGE + "/compressed" if compressed else IMAGE
    made = jpeg if compressed else image
    kinds = {
        image_topic: f"sensor_msgs/msg/{'Compressed' if compressed else ''}Image",
        INFO: "sensor_msgs/msg/CameraInfo",
        POSE: "geometry_msgs/msg/PoseStamped",
    }
    tools = [rig.motion() for _ in range(stops)]
    now = 1_700_000_000_000 * MS
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=STORE)
            for topic, kind in kinds.items()
            if topic != without
        }

        def write(topic: str, message: Any) -> None:
            if topic in connections:
                data = STORE.serialize_cdr(message, kinds[topic])
                writer.write(connections[topic], now, data)

        write(INFO, info(now))
        for here, there in zip(tools, [*tools[1:], tools[0]], strict=True):
            picture = rig.picture(here)
            for period in range(50):  # a second at rest
                write(POSE, pose(now, rig.measured(here)))
                if period % 5 == 0:
                    write(image_topic, made(now, picture))
                now += 20 * MS
            for period in range(25):
                moving = here.copy()
                moving[:3, 3] += (there[:3, 3] - here[:3, 3]) * period / 25
                write(POSE, pose(now, moving))
                if period % 5 == 0:
                    write(image_topic, made(now, picture))
                now += 20 * MS


def calibrate(*words: str | Path) -> tuple[int, str]:
    return rl100("calibrate", "camera", *words, timeout_s=240.0, COLUMNS="150")


def rig(mount: str = "fixed") -> Rig:
    rng = np.random.default_rng(21)
    return Rig(BoardDetector(Board()), Lens(LENS), mount, rng, robot_noise_m=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_gives_the_camera(tmp_path: Path, compressed: bool) -> None:
    truth, out = rig(), tmp_path / "camera.yaml"
    record(tmp_path / "bag", truth, compressed=compressed)
    topic = IMAGE + "/compressed" if compressed else IMAGE
    words = ("--task", "push", "--image", topic, "--mount", "fixed", "--out", out)
    code, output = calibrate("--from", tmp_path / "bag", *words)
    assert code == 0, output
    found = load_calibration(out)
    apart, turned = difference(found.matrix(), truth.x)
    assert apart <= 1e-3 and np.degrees(turned) <= 0.1
    # One view of each stop, and none of the ways between them.
    assert found.views == STOPS == len(load_views(tmp_path / "camera_views").views)
    assert output.count(" corners") == STOPS
    # The task that names the file has this camera, and is another task for it.
    data = load_task("push").model_dump(mode="json")
    del data["cameras"]["table"]["position"], data["cameras"]["table"]["quaternion_xyzw"]
    data["cameras"]["table"] |= {"calibration": "camera.yaml", "frame": "color_optical"}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(data))
    task = load_task(tmp_path / "task.yaml")
    assert task.cameras["table"].position == found.position
    assert task.cameras["table"].calibration is not None
    assert task.cameras["table"].calibration.hash == found.hash
    assert task.hash != load_task("push").hash


@pytest.mark.slow
def test_views_are_added_to_those_that_there_are(tmp_path: Path) -> None:
    truth, out = rig("tool"), tmp_path / "camera.yaml"
    record(tmp_path / "first", truth, stops=4)
    record(tmp_path / "second", truth, stops=5)
    words = ("--task", "push", "--image", IMAGE, "--mount", "tool", "--out", out)
    code, output = calibrate("--from", tmp_path / "first", *words)
    assert code == 2 and "4 views of the board are too few" in output
    assert f"the views are kept in {tmp_path / 'camera_views'}; --add goes on" in output
    code, output = calibrate("--from", tmp_path / "second", *words)
    assert code == 2 and "holds views already: add to them (--add)" in output
    code, output = calibrate("--from", tmp_path / "second", "--add", *words)
    assert code == 0, output
    assert load_calibration(out).views == 9
    assert difference(load_calibration(out).matrix(), truth.x)[0] <= 1e-3


@pytest.mark.parametrize("without", [IMAGE, INFO, POSE])
def test_what_a_bag_lacks_is_named(tmp_path: Path, without: str) -> None:
    made = rig()
    made.picture = lambda tool: np.zeros((48, 64), np.uint8)  # type: ignore[method-assign]
    record(tmp_path / "bag", made, without=without)
    words = ("--task", "push", "--image", IMAGE, "--mount", "fixed")
    code, output = calibrate("--from", tmp_path / "bag", *words, "--out", tmp_path / "camera.yaml")
    assert code == 2 and f"there is no message on {without}" in output, output


def test_a_damaged_bag_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bag.mcap").write_bytes(b"nothing of the kind")
    words = ("--task", "push", "--image", IMAGE, "--mount", "fixed")
    code, output = calibrate(
        "--from", tmp_path / "bag.mcap", *words, "--out", tmp_path / "camera.yaml"
    )
    assert code == 2 and "the bag cannot be read" in output and output.count("\n") == 1, output
