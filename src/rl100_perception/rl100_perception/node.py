"""The perception node: depth image and camera info in, the policy's point cloud out."""

from __future__ import annotations

import array
import time
from collections import deque

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from rl100_contracts.decode import Intrinsics, decode_camera_info, decode_depth
from rl100_contracts.errors import ContractError
from rl100_node.diagnostics import ERROR, OK, WARN, Diagnostics
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.parameters import declare_lockstep, declare_task
from rl100_node.qos import qos_for
from rl100_perception.pipeline import CloudPipeline, NoPointsError

SILENCE_S = 1.0


class PerceptionNode(AutostartLifecycleNode):
    """Publishes a cloud for each depth image, with the stamp of the image.

    When no cloud can be made it publishes nothing and says why on /diagnostics: the policy then
    has no new observation, and the gateway holds the robot.
    """

    def __init__(self) -> None:
        super().__init__("rl100_perception")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        streams, camera = self._task.streams, self._task.camera
        self._depth_topic = streams[camera.depth].topic
        self._info_topic = streams[camera.camera_info].topic
        for name, kind in ((camera.depth, "Image"), (camera.camera_info, "CameraInfo")):
            if streams[name].type != f"sensor_msgs/msg/{kind}":
                raise ContractError(
                    f"task '{self._task.name}': stream '{name}' is a {streams[name].type}, "
                    f"perception needs sensor_msgs/msg/{kind}"
                )

    # --- lifecycle

    def setup(self) -> None:
        """Make publishers and subscriptions."""
        task, streams = self._task, self._task.streams
        self._pipeline = CloudPipeline(task)
        self._intrinsics: Intrinsics | None = None
        self._info_key: tuple[object, ...] = ()
        self._waiting: Image | None = None
        self._clouds = self._missed = self._repeated = 0
        self._times_ms: deque[float] = deque(maxlen=200)
        self._last_image_s = time.monotonic()
        self._message = self._empty_cloud()
        self._diagnostics = Diagnostics(self)
        self.on_cleanup_do(self._diagnostics.destroy)
        cloud = streams[task.observation.cloud.stream]
        self._publisher = self.advertise(PointCloud2, cloud.topic, qos_for(cloud, self._lockstep))
        info, depth = streams[task.camera.camera_info], streams[task.camera.depth]
        newest = {"lockstep": self._lockstep, "latest_only": True}
        self.subscribe(CameraInfo, info.topic, self._on_info, qos_for(info, **newest))
        self.subscribe(Image, depth.topic, self._on_depth, qos_for(depth, **newest))
        self.every(0.5, self._check)

    def start(self) -> None:
        """Begin to publish clouds."""
        self._last_image_s = time.monotonic()
        self._diagnostics.report(WARN, f"no image on {self._depth_topic} yet")

    def halt(self) -> None:
        """Stop publishing clouds."""
        self._waiting = None
        self._diagnostics.report(OK, "inactive")

    def _empty_cloud(self) -> PointCloud2:
        count = self._task.observation.cloud.num_points
        message = PointCloud2(height=1, width=count, point_step=12, row_step=12 * count)
        message.header.frame_id = self._task.base_frame
        message.is_dense = True
        message.fields = [
            PointField(name=axis, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, axis in enumerate("xyz")
        ]
        return message

    # --- messages

    def _on_info(self, message: CameraInfo) -> None:
        key = (message.width, message.height, *message.k)
        if key != self._info_key:
            try:
                self._intrinsics = decode_camera_info(message)
            except ContractError as error:
                self._intrinsics = None
                self._diagnostics.report(ERROR, f"{self._info_topic}: {error}")
                return
            self._info_key = key
        if self._waiting is not None:
            image, self._waiting = self._waiting, None
            self._on_depth(image)

    def _on_depth(self, message: Image) -> None:
        if not self.active:
            return
        self._last_image_s = time.monotonic()
        if self._intrinsics is None:
            # The two topics race at the start; the newest image waits for its camera info.
            self._waiting = message
            self._diagnostics.report(WARN, f"no usable camera info on {self._info_topic} yet")
            return
        begin = time.perf_counter()
        try:
            depth = decode_depth(message, self._task.camera.depth_scale)
            cloud = self._pipeline.process(depth, self._intrinsics)
        except ContractError as error:
            self._missed += 1
            self._diagnostics.report(ERROR, f"{self._depth_topic}: {error}")
            return
        except NoPointsError as error:
            self._missed += 1
            self._diagnostics.report(ERROR, f"{self._depth_topic}: {error}")
            return
        self._publish(message, cloud.points)
        self._times_ms.append((time.perf_counter() - begin) * 1e3)
        self._clouds += 1
        self._repeated += cloud.repeated
        self._report(message, cloud.repeated, cloud.sampled_from)

    def _publish(self, image: Image, points: np.ndarray) -> None:
        self._message.header.stamp = image.header.stamp
        self._message.data = array.array("B", np.ascontiguousarray(points, dtype="<f4").tobytes())
        self._publisher.publish(self._message)

    # --- health

    def _report(self, image: Image, repeated: bool, sampled_from: int) -> None:
        self._sampled_from = sampled_from
        frame, expected = image.header.frame_id, self._task.camera.frame
        if frame != expected:
            self._diagnostics.report(
                WARN,
                f"{self._depth_topic} is in frame '{frame}', the task's camera pose is that of "
                f"'{expected}': check camera.frame",
            )
        elif repeated:
            self._diagnostics.report(
                WARN, "fewer points in the crop box than the policy expects: some are repeated"
            )
        else:
            self._diagnostics.report(OK, "running")

    def _check(self) -> None:
        if not self.active:
            return
        silence = time.monotonic() - self._last_image_s
        if self._clouds and not self._lockstep and silence > SILENCE_S:
            self._diagnostics.report(
                ERROR, f"no image on {self._depth_topic} for more than {SILENCE_S} s"
            )
        if self._times_ms:
            p50, p99 = np.percentile(list(self._times_ms), [50, 99])
            values = {
                "clouds": self._clouds,
                "images without a cloud": self._missed,
                "clouds with repeated points": self._repeated,
                "points in the crop box": self._sampled_from,
                "time p50 [ms]": f"{p50:.2f}",
                "time p99 [ms]": f"{p99:.2f}",
            }
            self._diagnostics.update(values)
