"""The perception node as a process, fed with depth images over DDS at a camera's rate."""

from __future__ import annotations

import array
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from rl100.bench.perception.scene import HEIGHT, WIDTH, depth_images
from rl100.own_node import OwnNode
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_node.discovery import introduce
from rl100_node.qos import qos_for
from rl100_sim.world import ImageSize, camera_model

START_TIMEOUT_S = 60.0
WARM_UP = 15
IMAGES = 8
# The second camera sends so long after the first, as a share of the period.
PHASE = 0.3
# What the node says of images that became no cloud.
COUNTS = ("frames lost before perception", "images lost in perception", "images without a cloud")


@dataclass(frozen=True)
class Flow:
    """What came of a run.

    Attributes:
        sent: sets of images.
        times_ms: how long each took that became a cloud, ms.
        dropped_s: when those were sent that did not, s after the first one.
        counted: what the node itself says of lost images, from /diagnostics.
    """

    sent: int
    times_ms: list[float]
    dropped_s: list[float]
    counted: dict[str, str]


class _Camera:
    """Publishes the images of one camera in turn."""

    def __init__(self, wire: OwnNode, task: Task, name: str, images: list[Any]) -> None:
        camera = task.cameras[name]
        assert camera.depth is not None and camera.camera_info is not None
        depth, info = task.streams[camera.depth], task.streams[camera.camera_info]
        model = camera_model(camera, ImageSize(width=WIDTH, height=HEIGHT))
        self.topics = [depth.topic, info.topic]
        self._depth = wire.node.create_publisher(Image, depth.topic, qos_for(depth, False))
        self._info = wire.node.create_publisher(CameraInfo, info.topic, qos_for(info, False))
        self._images = [_message(image, camera.frame) for image in images]
        self._count = 0
        self._lens = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob")
        self._lens.k = [model.fx, 0.0, model.cx, 0.0, model.fy, model.cy, 0.0, 0.0, 1.0]
        self._lens.header.frame_id = camera.frame

    def send(self) -> int:
        """Publish the next image, stamped now; returns its stamp, ns."""
        stamp_ns = time.time_ns()
        message = self._images[self._count % len(self._images)]
        self._count += 1
        for header in (message.header, self._lens.header):
            header.stamp.sec, header.stamp.nanosec = split_ns(stamp_ns)
        self._info.publish(self._lens)
        self._depth.publish(message)
        return stamp_ns


def _message(image: NDArray[np.uint16], frame: str) -> Image:
    message = Image(height=HEIGHT, width=WIDTH, encoding="16UC1", step=2 * WIDTH)
    message.header.frame_id = frame
    message.data = array.array("B", image.astype("<u2").tobytes())
    return message


def flow(
    task: Task, rate_hz: float, seconds: float, log: Path, progress: Callable[[float], None]
) -> Flow:
    """Send images of the task's cameras to the perception node and count its clouds.

    Times are from before the last image of a set is published until its cloud has arrived here.

    Raises:
        ContractError: the node doesn't come up, or ends.
    """
    log.mkdir(parents=True, exist_ok=True)
    task_file = log / f"perception_{len(task.cameras)}.yaml"
    task_file.write_text(task.to_yaml(), encoding="utf-8")
    images = depth_images(task, IMAGES)
    domain = random.SystemRandom().randrange(1, 100)
    system_nodes = describe("record", {"task": str(task_file)})
    nodes = [node for node in system_nodes if node.name == "rl100_perception"]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    wire = OwnNode("rl100_bench_camera", domain)
    try:
        with RunningSystem(nodes, log, environment=environment) as system:
            run = _Run(wire, task, images, system.check)
            run.connect()
            return run.measure(rate_hz, seconds, progress)
    finally:
        wire.close()


class _Run:
    def __init__(
        self, wire: OwnNode, task: Task, images: dict[str, Any], check: Callable[[], None]
    ) -> None:
        self._wire, self._check = wire, check
        self._cameras = [_Camera(wire, task, name, seen) for name, seen in images.items()]
        self._arrived: dict[int, int] = {}
        cloud = task.streams[task.cloud.stream]
        self._topics = [cloud.topic, *(t for camera in self._cameras for t in camera.topics)]
        qos = qos_for(cloud, False)
        wire.node.create_subscription(PointCloud2, cloud.topic, self._on_cloud, qos)
        self._counted: dict[str, str] = {}
        wire.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)

    def _on_cloud(self, message: PointCloud2) -> None:
        self._arrived[message_stamp_ns(message)] = time.time_ns()

    def _on_health(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        self._counted = {key: values[key] for key in COUNTS if key in values}

    def connect(self) -> None:
        """Wait until the node and this process know each other."""
        missing = introduce(self._wire.node, self._topics, self._spin_once, START_TIMEOUT_S)
        if missing:
            raise ContractError(f"the perception node did not come up ({missing}): see its log")

    def _spin_once(self, seconds: float) -> None:
        self._check()
        self._wire.spin_once(seconds)

    def _wait_until(self, when: float) -> None:
        while (left := when - time.perf_counter()) > 0:
            self._wire.spin_once(left)

    def measure(self, rate_hz: float, seconds: float, progress: Callable[[float], None]) -> Flow:
        """Send at the rate, and give what came back."""
        period, frames = 1.0 / rate_hz, max(round(seconds * rate_hz), 1)
        begin = time.perf_counter() + 0.1
        sent: dict[int, int] = {}  # the first image's stamp: the last one's, ns
        for number in range(frames + WARM_UP):
            self._wait_until(begin + number * period)
            first = last = self._cameras[0].send()
            for index, camera in enumerate(self._cameras[1:], 1):
                self._wait_until(begin + (number + index * PHASE) * period)
                last = camera.send()
            if number >= WARM_UP:
                sent[first] = last
                progress(period)
            if number % 30 == 0:
                self._check()
        self._wait_until(time.perf_counter() + 1.0)
        came = [stamp for stamp in sent if stamp in self._arrived]
        times = [(self._arrived[stamp] - sent[stamp]) * 1e-6 for stamp in came]
        start = min(sent)
        dropped = [(stamp - start) * 1e-9 for stamp in sent if stamp not in self._arrived]
        return Flow(len(sent), times, dropped, self._counted)
