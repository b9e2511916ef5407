"""The perception node: images of the task's cameras in, the policy's point cloud out."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from rl100_contracts.decode import message_stamp_ns, peek_stamp_ns
from rl100_contracts.streams import JOINT_STATE
from rl100_node.diagnostics import ERROR, OK, WARN, Diagnostics
from rl100_node.executors import call_soon
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.messages import message_class
from rl100_node.parameters import declare_lockstep, declare_task
from rl100_node.qos import qos_for
from rl100_perception.health import Health
from rl100_perception.maker import CloudMaker, Made, Refused
from rl100_perception.output import cloud_message
from rl100_perception.pace import Pace
from rl100_perception.realsense_feed import RealSenseFeed, declare_realsense, streams_of

SILENCE_S = 1.0
CROPPED_TOPIC = "/rl100/points_cropped"
# Poses of the tool that may wait while a cloud is made.
POSE_DEPTH = 100


class PerceptionNode(AutostartLifecycleNode):
    """Publishes a cloud for each set of images, with the stamp of the first camera's image.

    A message is only put by when it comes; clouds are made after all messages that wait have been
    taken. So the node knows how many images wait: it makes up for them, or, where it is too slow
    for its cameras (see ``pace``), takes the newest only.

    When no cloud can be made it publishes nothing and says why on /diagnostics: the policy then
    has no new observation, and the gateway holds the robot.
    """

    def __init__(self) -> None:
        super().__init__("rl100_perception")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        self._realsense = declare_realsense(self, self._task)
        CloudMaker(self._task)  # refuses a task that doesn't fit before anything else

    def _topic(self, stream: str) -> str:
        return self._task.streams[stream].topic

    # --- lifecycle

    def setup(self) -> None:
        """Make publishers and subscriptions."""
        task, streams = self._task, self._task.streams
        self._maker = CloudMaker(task)
        self._pace = Pace(streams[self._maker.image_streams[0]].rate_hz)
        self._work_is_due = False
        self._health = Health(task)
        self._last_image_s: dict[str, float] = {}
        self._last_cloud_s = time.monotonic()
        self._joint_stamps: deque[int] = deque(maxlen=512)
        self._diagnostics = Diagnostics(self)
        self.on_cleanup_do(self._diagnostics.destroy)
        cloud = streams[task.cloud.stream]
        self._publisher = self.advertise(PointCloud2, cloud.topic, qos_for(cloud, self._lockstep))
        self._cropped = self.advertise(PointCloud2, CROPPED_TOPIC, 1)
        self._feeds = [self._feed(name) for name in self._realsense]
        own = {s for name in self._realsense for s in streams_of(task.cameras[name])}
        for stream in [*self._maker.other_streams, *self._maker.image_streams]:
            if stream in own:
                continue
            kind = message_class(streams[stream].type)
            on_message = partial(self._on_message, stream)
            self.subscribe(kind, streams[stream].topic, on_message, self._qos(stream))
        self._joints = next(
            (name for name in task.proprioception_streams if streams[name].type == JOINT_STATE),
            None,
        )
        if self._joints is not None:
            joints = streams[self._joints]
            kind, qos = message_class(joints.type), qos_for(joints, self._lockstep)
            self.subscribe(kind, joints.topic, self._on_joints, qos, raw=True)
        self.every(0.5, self._check)

    def _feed(self, name: str) -> RealSenseFeed:
        source, settings = self._realsense[name]
        feed = RealSenseFeed(self, self._task, name, source, settings, self._on_message)
        self.on_cleanup_do(feed.destroy)
        return feed

    def _qos(self, stream: str) -> QoSProfile:
        spec = self._task.streams[stream]
        qos = qos_for(spec, self._lockstep)
        if spec.type == "geometry_msgs/msg/PoseStamped":
            qos.depth = max(qos.depth, POSE_DEPTH)
        return qos

    def start(self) -> None:
        """Begin to publish clouds."""
        self._maker.clear()
        self._last_image_s.clear()
        self._last_cloud_s = time.monotonic()
        self._diagnostics.report(WARN, f"no image on {self._first_topic} yet")

    def halt(self) -> None:
        """Stop publishing clouds."""
        self._diagnostics.report(OK, "inactive")

    @property
    def _first_topic(self) -> str:
        return self._topic(self._maker.image_streams[0])

    # --- messages

    def _on_joints(self, data: bytes) -> None:
        self._joint_stamps.append(peek_stamp_ns(data))

    def _on_message(self, stream: str, message: Any) -> None:
        is_image = stream in self._maker.image_streams
        if not is_image and stream not in self._maker.other_streams:
            return  # colours that a RealSense gives and the cloud doesn't need
        if is_image:
            if not self.active:
                return
            self._last_image_s[stream] = time.monotonic()
            if stream == self._maker.image_streams[0]:
                self._health.saw(message_stamp_ns(message))
        if refused := self._maker.take(stream, message):
            self._refuse(refused)
        if not self._work_is_due:
            self._work_is_due = True
            call_soon(self, self._work)

    def _work(self) -> None:
        """Make the clouds of the images that have come."""
        self._work_is_due = False
        if not self.active:
            return
        latest_only = not (self._lockstep or self._pace.keeps_up)
        idle, begin = True, time.perf_counter()
        for outcome in self._maker.complete(latest_only=latest_only):
            idle = False
            if isinstance(outcome, Refused):
                self._refuse(outcome)
            else:
                self._publish(outcome)
                time_s = time.perf_counter() - begin
                self._pace.add(time_s)
                self._health.count(outcome, time_s, self.get_clock().now().nanoseconds)
                self._diagnostics.report(*self._health.verdict(outcome))
            begin = time.perf_counter()
        if idle and self._maker.has_images and (missing := self._maker.waiting_for_info()):
            self._diagnostics.report(WARN, missing)

    def _refuse(self, refused: Refused) -> None:
        self._health.refused += 1
        self._diagnostics.report(ERROR, refused.reason)

    def _publish(self, made: Made) -> None:
        frame, result = self._task.base_frame, made.result
        stamp = made.images[self._maker.image_streams[0]].header.stamp
        self._publisher.publish(cloud_message(frame, stamp, result.points, result.colours))
        if self._cropped.get_subscription_count():
            cropped = result.cropped
            self._cropped.publish(cloud_message(frame, stamp, cropped.xyz, cropped.colours))
        self._last_cloud_s = time.monotonic()

    # --- health

    def _check(self) -> None:
        if not self.active:
            return
        if not self._lockstep and (problem := self._silence()):
            self._diagnostics.report(ERROR, problem)
        if self._joints is not None:
            self._health.compare_clocks(self._joints, list(self._joint_stamps))
        values = self._health.values()
        values["images lost in perception"] = self._maker.images_lost
        self._diagnostics.update(values)

    def _silence(self) -> str:
        """One sentence on what has stopped; empty when nothing has."""
        for feed in self._feeds:
            if feed.problem:
                return feed.problem
        now = time.monotonic()
        for stream, last in self._last_image_s.items():
            if now - last > SILENCE_S:
                return f"no image on {self._topic(stream)} for more than {SILENCE_S} s"
        if self._last_image_s and now - self._last_cloud_s > SILENCE_S:
            return self._maker.waiting_for()
        return ""
