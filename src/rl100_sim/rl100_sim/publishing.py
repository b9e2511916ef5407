"""What the simulated robot publishes. Messages are made once and refilled: lockstep is fast."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from rl100_contracts.decode import split_ns
from rl100_msgs.msg import SimState
from rl100_node.qos import command_qos, qos_for
from rl100_sim.camera import CameraModel
from rl100_sim.playable import JOINTS, TOOL, proprioceptive_stream
from rl100_sim.world import Proprioception, PushWorld, Truth

GROUND_TRUTH_TOPIC = "/sim/ground_truth"
COLOUR_TOPIC = "/camera/color/image_raw"  # where the task observes no image
COLOUR_FRAME = "camera_color_optical_frame"


def _camera_info(camera: CameraModel, frame: str) -> CameraInfo:
    info = CameraInfo(height=camera.height, width=camera.width, distortion_model="plumb_bob")
    info.header.frame_id = frame
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    info.d = [0.0] * 5
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class _ImagePublisher:
    """Publishes images and their camera info with one stamp."""

    def __init__(
        self, image: Any, info: Any, camera: CameraModel, frame: str, encoding: str, depth: int
    ) -> None:
        self._image, self._info = image, info
        self._info_msg = _camera_info(camera, frame)
        self._message = Image(height=camera.height, width=camera.width, encoding=encoding)
        self._message.header.frame_id = frame
        self._message.step = camera.width * depth  # bytes of a pixel
        self._pixels = array("B", bytes(camera.height * camera.width * depth))

    def publish(self, stamp_ns: int, pixels: NDArray[np.uint8]) -> None:
        """Publish an image, given as its bytes in a row."""
        self._message.header.stamp = self._info_msg.header.stamp = _time(stamp_ns)
        np.frombuffer(self._pixels, dtype=np.uint8)[:] = pixels
        self._message.data = self._pixels
        self._info.publish(self._info_msg)
        self._image.publish(self._message)


class RobotPublishers:
    """Publishes joints, tool, ground truth, and what the task needs of depth, colour and clock.

    Args:
        colour: publish colour images also where the task doesn't observe them.
    """

    def __init__(self, node: Node, world: PushWorld, *, lockstep: bool, colour: bool) -> None:
        task, camera = world.task, world.camera
        joints = proprioceptive_stream(task, JOINTS)
        tool = proprioceptive_stream(task, TOOL)

        def publisher(kind: Any, name: str) -> Any:
            stream = task.streams[name]
            return node.create_publisher(kind, stream.topic, qos_for(stream, lockstep))

        def on_topic(kind: Any, topic: str) -> Any:
            known = [name for name, stream in task.streams.items() if stream.topic == topic]
            if known:
                return publisher(kind, known[0])
            return node.create_publisher(kind, topic, command_qos())

        self._joints = publisher(JointState, joints)
        self._tool = publisher(PoseStamped, tool)
        self._depth: dict[str, _ImagePublisher] = {}
        for name, model in world.cameras.items():
            stated = task.cameras[name]
            assert stated.depth is not None and stated.camera_info is not None  # see PushWorld
            depth = publisher(Image, stated.depth)
            info = publisher(CameraInfo, stated.camera_info)
            self._depth[name] = _ImagePublisher(depth, info, model, stated.frame, "16UC1", 2)
        self._colour: _ImagePublisher | None = None
        observed = task.observation.image
        if colour or observed is not None:
            topic = COLOUR_TOPIC if observed is None else task.streams[observed.stream].topic
            image = on_topic(Image, topic)
            info = on_topic(CameraInfo, f"{topic.rpartition('/')[0]}/camera_info")
            self._colour = _ImagePublisher(image, info, camera, COLOUR_FRAME, "rgb8", 3)
        self._truth = node.create_publisher(SimState, GROUND_TRUTH_TOPIC, command_qos())
        self._clock = node.create_publisher(Clock, "/clock", command_qos()) if lockstep else None

        self._joint_msg = JointState(name=list(task.joint_names))
        self._joint_msg.header.frame_id = task.base_frame
        self._tool_msg = PoseStamped()
        self._tool_msg.header.frame_id = task.base_frame
        self._tool_msg.pose.orientation.w = 1.0
        self._tool_msg.pose.position.z = world.tool_height
        self._truth_msg = SimState()
        self._truth_msg.header.frame_id = task.base_frame
        self._clock_msg = Clock()

    def clock(self, stamp_ns: int) -> None:
        """Publish the simulated time (lockstep only)."""
        if self._clock is not None:
            self._clock_msg.clock = _time(stamp_ns)
            self._clock.publish(self._clock_msg)

    def proprioception(self, stamp_ns: int, measured: Proprioception) -> None:
        """Publish joint states and the tool pose."""
        stamp = _time(stamp_ns)
        joints, tool = self._joint_msg, self._tool_msg
        joints.header.stamp = tool.header.stamp = stamp
        joints.position = array("d", measured.joint_positions)
        joints.velocity = array("d", measured.joint_velocities)
        position = tool.pose.position
        position.x, position.y = measured.tool_xy.tolist()
        self._joints.publish(joints)
        self._tool.publish(tool)

    def images(self, stamp_ns: int, world: PushWorld) -> None:
        """Publish what the cameras see now, as far as anybody wants it."""
        for name, publisher in self._depth.items():
            depth = world.depth(name).astype("<u2").reshape(-1).view(np.uint8)
            publisher.publish(stamp_ns, depth)
        if self._colour is not None:
            self._colour.publish(stamp_ns, world.colour().reshape(-1))

    def truth(self, stamp_ns: int, truth: Truth) -> None:
        """Publish the ground truth."""
        message = self._truth_msg
        message.header.stamp = _time(stamp_ns)
        message.seed, message.step = truth.seed, truth.step
        message.tool_position = truth.tool_position
        message.tool_target = truth.tool_target
        message.block_position = truth.block_position
        message.block_yaw = truth.block_yaw
        message.goal_position = truth.goal_position
        message.success, message.done = truth.success, truth.done
        self._truth.publish(message)


def _time(stamp_ns: int) -> Time:
    seconds, nanoseconds = split_ns(stamp_ns)
    return Time(sec=seconds, nanosec=nanoseconds)
