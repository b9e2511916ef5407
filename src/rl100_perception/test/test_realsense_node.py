"""RealSense cameras that the perception node reads itself, as a process, with a recording of
librealsense in place of a camera.

Pins: the camera's images are published on the task's topics, and the clouds are made of these very
images; unplugged, the node says so, and goes on when the camera is back; a wrong parameter is one
sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

import scenes
import soft_camera as soft
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from rl100_contracts.decode import decode_camera_info, decode_cloud, message_stamp_ns
from rl100_node.qos import latched_qos
from rl100_node.testing import Graph
from rl100_perception.maker import CloudMaker, Made

pytestmark = pytest.mark.integration


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def test_a_camera_is_read_recorded_and_comes_back(graph: Graph, tmp_path: Path) -> None:
    recording = tmp_path / "camera.db3"
    soft.record(recording, 40)
    task = scenes.task(colour=True)
    path = tmp_path / "task.yaml"
    path.write_text(task.to_yaml())
    process = graph.start(
        "rl100_perception.main",
        task=path,
        realsense=f"table:{recording}",
        realsense_size="64x48",
    )
    health = graph.record(DiagnosticArray, "/diagnostics")
    clouds = graph.record(PointCloud2, task.streams["points"].topic)
    depths = graph.record(Image, task.streams["depth"].topic)
    colours = graph.record(Image, task.streams["color"].topic)
    infos = graph.record(CameraInfo, task.streams["camera_info"].topic)
    extrinsics = graph.record(
        TransformStamped, "/rl100/cameras/table/depth_to_color", latched_qos()
    )

    def said(words: str) -> bool:
        return any(words in array.status[0].message for array in health)

    graph.wait(lambda: said("running"), "clouds")
    graph.wait(lambda: said("gives no images: is it unplugged?"), "the end of the recording")
    health.clear()
    graph.wait(lambda: said("running"), "the camera that is back")
    # By now every reader is known, so that images and clouds from here on belong together.
    seen = (clouds, depths, colours)
    for messages in seen:
        messages.clear()
    graph.wait(lambda: min(map(len, (*seen, extrinsics, infos))) > 0, "all of it again")
    graph.wait(lambda: min(map(len, seen)) > 10, "clouds again")
    graph.stop(process)

    # The images are those of the recording, and the clouds are made of these very images.
    for image in depths:
        number = round((message_stamp_ns(image) * 1e-6 - 1000.0) / 33.0)
        rows = np.frombuffer(image.data, "<u2").reshape(48, 64)
        np.testing.assert_array_equal(rows, soft.depth_image(number))
    assert decode_camera_info(infos[0]).fx == 60.0
    assert colours[0].encoding == "rgb8"
    assert extrinsics[0].header.frame_id == task.cameras["table"].frame
    maker = CloudMaker(task, keep=100)
    maker.add("camera_info", infos[0])
    made = {}
    # The lists were cleared between the two images of a frame, maybe.
    whole = {message_stamp_ns(i) for i in colours} & {message_stamp_ns(i) for i in depths}
    assert len(whole) > 5
    for stream, images in (("color", colours), ("depth", depths)):
        by_stamp = {message_stamp_ns(image): image for image in images}
        for stamp in sorted(whole):
            for outcome in maker.add(stream, by_stamp[stamp]):
                assert isinstance(outcome, Made)
                made[outcome.stamp_ns] = outcome.result.points
    compared = 0
    for cloud in clouds:
        if message_stamp_ns(cloud) in made:
            points = made[message_stamp_ns(cloud)]
            np.testing.assert_array_equal(decode_cloud(cloud), points)
            compared += 1
    assert compared > 5


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"realsense": "front:1"},
            "parameter realsense names 'front', which is no depth camera",
        ),
        (
            {"realsense": "table"},
            "parameter realsense has 'table': write it like camera:serial",
        ),
        ({"realsense_size": "large"}, "parameter realsense_size is 'large'"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(
    graph: Graph, parameters: dict[str, str], sentence: str
) -> None:
    process = graph.start("rl100_perception.main", **parameters)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output
    assert sentence in output
