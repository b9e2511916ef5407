"""The perception node as a process, given what real cameras do wrong.

Pins: each fault is one sentence on /diagnostics and no cloud, the process lives, and good input
gives clouds again: a camera unplugged and plugged in, a lens that is unknown, images of nothing but
NaN or 0, joint states on another clock, a tool pose that is missing. Also: all points of the crop
box are published while somebody subscribes, and colours where the task asks for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2

from rl100_contracts.decode import decode_cloud, decode_cloud_colours, message_stamp_ns
from rl100_contracts.task import Task
from rl100_node.testing import Graph, Talker
from rl100_perception.maker import CloudMaker, Made

pytestmark = pytest.mark.integration

START = 10**9
PERIOD = 50_000_000


def to_ros(message: Any) -> Any:
    """A message of a bag as the one of rclpy, by its bytes."""
    name = message.__msgtype__
    kind = {c.__name__: c for c in (Image, CameraInfo, PoseStamped)}[name.rpartition("/")[2]]
    return deserialize_message(bytes(scenes.STORE.serialize_cdr(message, name)), kind)


class Setup:
    """The node with a task, and what a test sends and gets."""

    def __init__(self, graph: Graph, task: Task, folder: Path) -> None:
        self.graph, self.task = graph, task
        path = folder / "task.yaml"
        path.write_text(task.to_yaml())
        self.process = graph.start("rl100_perception.main", task=path)
        self.talkers: dict[str, Talker] = {}
        self.clouds = graph.record(PointCloud2, task.streams["points"].topic)
        self.health = graph.record(DiagnosticArray, "/diagnostics")
        self.tick = 0

    def send(self, stream: str, message: Any) -> None:
        if stream not in self.talkers:
            topic = self.task.streams[stream].topic
            self.talkers[stream] = self.graph.publisher(type(message), topic)
        self.talkers[stream].publish(message)

    @property
    def sentence(self) -> str:
        return self.health[-1].status[0].message if self.health else ""

    @property
    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.health[-1].status[0].values}

    def pump(self, send: Callable[[int], None], until: Callable[[], bool], what: str) -> None:
        """Send at 20 Hz, each time with the next stamp, until a condition holds."""
        end = time.monotonic() + 30.0
        while not until():
            assert time.monotonic() < end, f"waited in vain for {what}; {self.sentence}"
            self.tick += 1
            send(START + self.tick * PERIOD)
            self.graph.spin(0.05)

    def pump_until_said(self, send: Callable[[int], None], words: str) -> None:
        self.pump(send, lambda: words in self.sentence, f"'{words}'")
        assert self.process.poll() is None

    def pump_until_well(self, send: Callable[[int], None]) -> None:
        before = len(self.clouds)
        well = lambda: len(self.clouds) > before + 2 and self.sentence == "running"  # noqa: E731
        self.pump(send, well, "the recovery")


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def test_a_camera_is_unplugged_and_plugged_in_again(graph: Graph, tmp_path: Path) -> None:
    setup = Setup(graph, scenes.task(second=True), tmp_path)
    for stream in ("camera_info", "camera_info_2"):
        setup.send(stream, to_ros(scenes.info()))

    def first(stamp: int) -> None:
        setup.send("depth", to_ros(scenes.depth(stamp, 1)))

    def both(stamp: int) -> None:
        first(stamp)
        setup.send("depth_2", to_ros(scenes.depth(stamp + 3_000_000, 2)))

    setup.pump_until_well(both)
    setup.pump_until_said(first, "no image on /second/depth for more than 1.0 s")
    count = len(setup.clouds)
    setup.pump_until_well(both)
    assert float(setup.values["skew between images [ms]"]) == pytest.approx(3.0)
    # And every cloud is what the core makes of the two images.
    maker = CloudMaker(setup.task)
    maker.add("camera_info", scenes.info())
    maker.add("camera_info_2", scenes.info())
    stamp = message_stamp_ns(setup.clouds[count])
    maker.add("depth", scenes.depth(stamp, 1))
    (made,) = maker.add("depth_2", scenes.depth(stamp + 3_000_000, 2))
    assert isinstance(made, Made)
    np.testing.assert_array_equal(decode_cloud(setup.clouds[count]), made.result.points)
    graph.stop(setup.process)


def test_images_of_nothing_and_an_unknown_lens(graph: Graph, tmp_path: Path) -> None:
    setup = Setup(graph, scenes.task(), tmp_path)
    good = to_ros(scenes.info())

    def depth(stamp: int) -> None:
        setup.send("depth", to_ros(scenes.depth(stamp)))

    def nothing(value: float) -> Callable[[int], None]:
        def send(stamp: int) -> None:
            message = scenes.depth(stamp, encoding="32FC1")
            message.step = 4 * message.width
            message.data = np.full((24, 32), value, dtype="<f4").view(np.uint8).ravel()
            setup.send("depth", to_ros(message))

        return send

    setup.send("camera_info", to_ros(scenes.info(1, "thin_prism", (0.1, 0.2))))
    setup.pump_until_said(
        lambda stamp: None, "/camera/depth/camera_info: distortion model 'thin_prism' of the"
    )
    end = setup.tick + 15
    setup.pump(depth, lambda: setup.tick >= end, "fifteen images")
    assert "distortion model 'thin_prism'" in setup.sentence  # still, and no cloud
    assert not setup.clouds
    setup.send("camera_info", good)
    setup.pump_until_well(depth)
    for value in (float("nan"), 0.0, 9.0):
        setup.pump_until_said(nothing(value), "no point lies in the crop box")
        count, end = len(setup.clouds), setup.tick + 5
        setup.pump(nothing(value), lambda: setup.tick >= end, "five more images")  # noqa: B023
        assert len(setup.clouds) == count
        setup.pump_until_well(depth)
    refused = lambda: int(setup.values.get("images without a cloud", 0)) >= 15  # noqa: E731
    setup.pump(depth, refused, "the count of the images without a cloud")
    graph.stop(setup.process)


def test_joint_states_on_another_clock(graph: Graph, tmp_path: Path) -> None:
    setup = Setup(graph, scenes.task(), tmp_path)
    setup.send("camera_info", to_ros(scenes.info()))

    def send(ahead_ns: int) -> Callable[[int], None]:
        def both(stamp: int) -> None:
            joints = JointState(name=["shoulder_joint", "elbow_joint"], position=[0.0, 0.0])
            joints.header = to_ros(scenes.depth(stamp + ahead_ns)).header
            setup.send("joint_states", joints)
            setup.send("depth", to_ros(scenes.depth(stamp)))

        return both

    setup.pump_until_well(send(0))
    words = "stamps on /rl100/points and /joint_states differ by more than observation.max_skew_s"
    setup.pump_until_said(send(10**12), words)
    setup.pump_until_well(send(0))
    setup.pump(send(0), lambda: setup.values.get("skew to joint states [ms]") == "0.0", "the skew")
    graph.stop(setup.process)


def test_a_tool_pose_that_is_missing(graph: Graph, tmp_path: Path) -> None:
    setup = Setup(graph, scenes.task(tool=True), tmp_path)
    setup.send("camera_info", to_ros(scenes.info()))

    poses = []

    def depth(stamp: int) -> None:
        setup.send("depth", to_ros(scenes.depth(stamp)))

    def with_pose(stamp: int) -> None:
        depth(stamp)
        # A third of the way from this pose to the next one lies the next image.
        poses.append(scenes.moving_pose(stamp + PERIOD * 2 // 3))
        setup.send("tool_pose", to_ros(poses[-1]))

    setup.pump_until_said(depth, "no pose on /tool_pose yet")
    setup.pump_until_well(with_pose)
    setup.pump_until_said(depth, "poses on /tool_pose are older than the image")
    setup.pump_until_well(with_pose)
    graph.stop(setup.process)
    # The clouds are those that the same messages give in another order, as a bag may have them.
    maker = CloudMaker(setup.task, keep=1000)
    maker.add("camera_info", scenes.info())
    for pose in poses:
        maker.add("tool_pose", pose)
    compared = 0
    for cloud in setup.clouds:
        stamp = message_stamp_ns(cloud)
        for outcome in maker.add("depth", scenes.depth(stamp)):
            if isinstance(outcome, Made):
                np.testing.assert_array_equal(decode_cloud(cloud), outcome.result.points)
                compared += 1
    assert compared > 3


def test_the_whole_crop_and_colours_on_demand(graph: Graph, tmp_path: Path) -> None:
    setup = Setup(graph, scenes.task(colour=True), tmp_path)
    setup.send("camera_info", to_ros(scenes.info()))

    def both(stamp: int) -> None:
        setup.send("depth", to_ros(scenes.depth(stamp)))
        setup.send("color", to_ros(scenes.colour(stamp)))

    setup.pump_until_well(both)
    assert len(decode_cloud_colours(setup.clouds[-1])) == 64
    cropped = graph.record(PointCloud2, "/rl100/points_cropped")
    setup.pump(both, lambda: bool(cropped), "the cropped cloud")
    points, colours = decode_cloud(cropped[-1]), decode_cloud_colours(cropped[-1])
    assert len(points) == 24 * 32 == int(cropped[-1].width) and cropped[-1].point_step == 16
    np.testing.assert_array_equal(colours[:32, 0], np.arange(32))
    assert set(colours[:, 1]) == {0}
    graph.stop(setup.process)
