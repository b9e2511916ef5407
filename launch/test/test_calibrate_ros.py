"""``rl100 calibrate`` as a user runs it, against a camera and a robot in a process of their own.

Pins: from live topics the pose comes out to 1 mm and 0.1 degrees, and lies in a file that loads;
the views that were kept give the same pose again; each thing that goes wrong is one sentence.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from run_command import rl100

from rl100_contracts.calibration import load_calibration
from rl100_contracts.pose import rotation_of
from rl100_contracts.task import load_task
from rl100_node.testing import Graph
from rl100_perception.calibration.hand_eye import difference

pytestmark = pytest.mark.integration
RIG = Path(__file__).parent / "fake_rig.py"
IMAGE = "/camera/color/image_raw"


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def rig(graph: Graph, mount: str, seed: int, does: str) -> np.ndarray:
    """Start a rig; returns the pose of its camera."""
    process = subprocess.Popen(
        [sys.executable, str(RIG), mount, str(seed), does],
        env={**os.environ, "ROS_DOMAIN_ID": str(graph.domain)},
        stdout=subprocess.PIPE,
        text=True,
    )
    graph.processes.append(process)
    assert process.stdout is not None
    return np.array(json.loads(process.stdout.readline()))


def calibrate(graph: Graph | None, *words: str | Path) -> tuple[int, str]:
    """Exit status and output of ``rl100 calibrate WORDS``."""
    domain = {"ROS_DOMAIN_ID": str(graph.domain)} if graph else {}
    return rl100("calibrate", *words, timeout_s=240.0, COLUMNS="150", **domain)


@pytest.mark.slow
@pytest.mark.parametrize(("mount", "seed"), [("fixed", 11), ("tool", 12)])
def test_a_camera_is_calibrated_from_live_topics(
    graph: Graph, tmp_path: Path, mount: str, seed: int
) -> None:
    truth, out = rig(graph, mount, seed, "stop"), tmp_path / "camera.yaml"
    words = ("--task", "push", "--image", IMAGE, "--mount", mount, "--auto", "--views", "9")
    code, output = calibrate(graph, "camera", *words, "--name", "overview", "--out", out)
    assert code == 0, output
    found = load_calibration(out)
    apart, turned = difference(found.matrix(), truth)
    assert apart <= 1e-3 and np.degrees(turned) <= 0.1, output
    assert (found.camera, found.mount, found.views) == ("overview", mount, 9)
    assert found.frame == "color_optical"
    task = load_task("push")
    assert found.parent_frame == (task.base_frame if mount == "fixed" else task.tool_frame)
    assert found.hash in output
    # The views were kept: the same pose again, without the robot.
    again = tmp_path / "again.yaml"
    code, output = calibrate(None, "camera", "--from", tmp_path / "camera_views", "--out", again)
    assert code == 0, output
    np.testing.assert_allclose(load_calibration(again).matrix(), found.matrix(), atol=1e-9)
    # A wrong size of the board is found out by the robot's motion.
    wrong = ("--square", "40", "--marker", "30", "--overwrite")
    code, output = calibrate(
        None, "camera", "--from", tmp_path / "camera_views", "--out", again, *wrong
    )
    assert code == 2 and "0.90" in output and "measure a square" in output, output


class Typist:
    """``rl100 calibrate camera`` on a terminal of its own."""

    def __init__(self, graph: Graph, out: Path) -> None:
        words = ["camera", "--task", "push", "--image", IMAGE, "--mount", "fixed", "--out", out]
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rl100.cli", "calibrate", *map(str, words)],
            env={**os.environ, "ROS_DOMAIN_ID": str(graph.domain), "COLUMNS": "200"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def wait(self, words: str) -> None:
        end = time.monotonic() + 90
        while not re.search(words, self.text):
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self._master, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # the other side has closed the terminal
                assert re.search(words, self.text), self.text

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def end(self) -> int:
        code = self._process.wait(timeout=60)
        os.close(self._master)
        assert "Traceback" not in self.text
        return code


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("move", "no view: the robot moved while the view was taken"),
        ("blank", "no view: no marker of DICT_5X5_100 is in the image"),
    ],
)
def test_a_key_takes_a_view_or_says_why_not(
    graph: Graph, tmp_path: Path, does: str, words: str
) -> None:
    rig(graph, "fixed", 3, does)
    typist = Typist(graph, tmp_path / "camera.yaml")
    typist.wait("0 of 15 views; space takes a view")
    typist.press(" ")
    typist.wait(words)
    typist.press("q")
    typist.wait("error: no view was taken")
    assert typist.end() == 2
    assert not (tmp_path / "camera.yaml").exists()


def test_a_missing_topic_is_named(graph: Graph, tmp_path: Path) -> None:
    rig(graph, "fixed", 3, "blank")
    words = ("--task", "push", "--mount", "fixed", "--auto", "--out", tmp_path / "camera.yaml")
    code, output = calibrate(graph, "camera", *words, "--image", "/camera/colour/image_raw")
    assert code == 2, output
    assert "no image on /camera/colour/image_raw: nobody publishes it (there: " in output
    assert "/camera/color/image_raw)" in output  # what there is instead
    info = ("--camera-info", "/camera/none")
    code, output = calibrate(graph, "camera", *words, "--image", IMAGE, *info)
    assert code == 2 and "no camera info on /camera/none" in output, output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--task", "push", "--image", IMAGE), "--mount fixed"),
        (("--mount", "fixed"), "give --task and --image"),
        (("--from", "nowhere"), r"nowhere: no such folder of views"),
        (("--mount", "fixed", "--task", "push", "--image", IMAGE), "is not a terminal"),
        (("--mount", "fixed", "--marker", "50"), "must be smaller than the square"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    code, output = calibrate(None, "camera", *words, "--out", tmp_path / "camera.yaml")
    assert code == 2 and sentence in output and output.count("\n") == 1, output


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "camera.yaml"
    out.write_text("precious")
    code, output = calibrate(None, "camera", "--mount", "fixed", "--out", out)
    assert code == 2 and "--overwrite replaces it" in output
    assert out.read_text() == "precious"


def test_a_printed_board_has_its_true_size(tmp_path: Path) -> None:
    out = tmp_path / "board.png"
    code, output = calibrate(None, "board", out, "--square", "30", "--marker", "22")
    assert code == 0 and "a square must be 30 mm" in output
    page = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    dots_per_m = 600 / 0.0254
    # From the first black pixel of the top row of squares to the last: 7 squares of 30 mm.
    row = np.flatnonzero(page[round(0.012 * dots_per_m)] < 128)
    assert (row[-1] + 1 - row[0]) / dots_per_m == pytest.approx(7 * 0.030, abs=1e-4)
    out = tmp_path / "board.pdf"
    assert calibrate(None, "board", out)[0] == 0
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", out.read_bytes())
    assert box is not None
    width_m = float(box.group(1)) / 72 * 0.0254
    assert width_m == pytest.approx(7 * 0.036 + 2 * 0.01, abs=2e-4)


def test_pictures_without_the_board_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    cv2.imwrite(str(folder / "view_00.png"), np.full((48, 64), 120, np.uint8))
    lens = {"width": 64, "height": 48, "fx": 60.0, "fy": 60.0, "cx": 32.0, "cy": 24.0}
    view = {"name": "view_00", "position": [0, 0, 0], "quaternion_xyzw": [0, 0, 0, 1]}
    data = {
        "format_version": 1,
        "camera": "wrist",
        "frame": "wrist_optical",
        "mount": "fixed",
        "base_frame": "base_link",
        "tool_frame": "tool0",
        "board": {"kind": "charuco"},
        "intrinsics": lens,
        "views": [view],
    }
    (folder / "views.yaml").write_text(yaml.safe_dump(data))
    code, output = calibrate(None, "camera", "--from", folder, "--out", tmp_path / "camera.yaml")
    assert code == 2
    assert "view_00 is left out: no marker of DICT_5X5_100" in output
    assert "the board is in none of its 1 pictures" in output


def test_the_tool_is_found_from_joints_and_the_urdf() -> None:
    pytest.importorskip("pinocchio")
    from sensor_msgs.msg import JointState

    from rl100.calibrate.sources import ToolPose

    examples = Path(__file__).parents[2] / "src" / "rl100_control" / "examples"
    task = load_task(examples / "arm6_pose.yaml")
    joints = {k: s for k, s in task.streams.items() if s.type == "sensor_msgs/msg/JointState"}
    assert task.robot is not None and task.robot.joint_states in joints
    part = task.observation.proprioception[0].model_copy(
        update={"stream": task.robot.joint_states, "names": task.joint_names[:1]}
    )
    seen = task.observation.model_copy(update={"proprioception": [part]})
    action = task.action.model_copy(update={"feedback": task.robot.joint_states})
    source = ToolPose(task.model_copy(update={"observation": seen, "action": action}), examples)
    assert source.topic == joints[task.robot.joint_states].topic
    message = JointState(name=list(task.joint_names), position=[0.0] * len(task.joint_names))
    straight = source.pose(message)
    # Turning the first joint by a quarter turns everything about the base's z axis.
    message.position[0] = np.pi / 2
    turned = source.pose(message)
    quarter = rotation_of([0, 0, np.sqrt(0.5), np.sqrt(0.5)]).as_matrix()
    np.testing.assert_allclose(turned[:3, 3], quarter @ straight[:3, 3], atol=1e-9)
    np.testing.assert_allclose(turned[:3, :3], quarter @ straight[:3, :3], atol=1e-9)
