"""The perception node as a process: the cloud of an image has its stamp and is the core's, and an
image that cannot be used gives no cloud but a sentence on /diagnostics."""

from __future__ import annotations

import array
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from rl100_contracts.decode import Intrinsics, decode_cloud, decode_depth
from rl100_contracts.task import load_task
from rl100_node.testing import Graph
from rl100_perception.pipeline import CloudPipeline
from rl100_perception.view import View

pytestmark = pytest.mark.integration

TASK = load_task("push")
CAMERA = TASK.cameras["table"]
INTRINSICS = Intrinsics(128, 96, 110.0, 110.0, 63.5, 47.5)


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def image(sec: int, depth_mm: np.ndarray, encoding: str = "16UC1") -> Image:
    height, width = depth_mm.shape
    message = Image(height=height, width=width, step=2 * width, encoding=encoding)
    message.header.stamp.sec = sec
    message.header.frame_id = CAMERA.frame
    message.data = array.array("B", depth_mm.astype("<u2").tobytes())
    return message


def info() -> CameraInfo:
    c = INTRINSICS
    k = [c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0]
    return CameraInfo(width=c.width, height=c.height, k=k)


@pytest.mark.parametrize("lockstep", [False, True])
def test_image_in_cloud_out(graph: Graph, lockstep: bool) -> None:
    process = graph.start("rl100_perception.main", lockstep=lockstep)
    infos = graph.publisher(CameraInfo, TASK.streams["camera_info"].topic)
    images = graph.publisher(Image, TASK.streams["depth"].topic)
    clouds = graph.record(PointCloud2, TASK.streams["points"].topic)
    health = graph.record(DiagnosticArray, "/diagnostics")
    depth = np.random.default_rng(0).integers(300, 1500, (96, 128)).astype(np.uint16)

    def sentence() -> str:
        return health[-1].status[0].message if health else ""

    # The image may come before its camera info.
    images.publish(image(7, depth))
    graph.wait(lambda: "no camera info on" in sentence(), "a sentence on camera info")
    assert not clouds
    infos.publish(info())
    graph.wait(lambda: len(clouds) == 1, "a cloud")
    cloud = clouds[0]
    assert cloud.header.stamp.sec == 7 and cloud.header.frame_id == "base_link"
    view = View(decode_depth(image(7, depth), CAMERA.depth_scale), INTRINSICS)
    expected = CloudPipeline(TASK).process({"table": view})
    np.testing.assert_array_equal(decode_cloud(cloud), expected.points)

    images.publish(image(8, depth, encoding="rgb8"))
    graph.wait(lambda: "'rgb8' is unknown" in sentence(), "a sentence on the encoding")
    images.publish(image(9, depth[::2]))
    graph.wait(lambda: "128x48 pixels" in sentence(), "a sentence on the size")
    images.publish(image(10, depth * 0))
    graph.wait(lambda: "no point lies in the crop box" in sentence(), "a sentence on the view")
    assert len(clouds) == 1
    images.publish(image(11, depth))
    graph.wait(lambda: len(clouds) == 2 and sentence() == "running", "the recovery")
    graph.stop(process)
