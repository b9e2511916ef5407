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
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Role, Task
from rl100_msgs.msg import SimState
from rl100_node.qos import command_qos, qos_for
from rl100_sim.camera import CameraModel
from rl100_sim.world import Proprioception, PushWorld, Truth

GROUND_TRUTH_TOPIC = "/sim/ground_truth"
COLOUR_TOPIC = "/camera/color/image_raw"


def proprioceptive_stream(task: Task, message_type: str) -> str:
    """Name of the task's proprioceptive stream of a message type.

    Raises:
        ContractError: the task has none.
    """
    for name, stream in task.streams.items():
        if stream.role is Role.PROPRIOCEPTION and stream.type == message_type:
            return name
    raise ContractError(
        f"task '{task.name}': the simulated robot needs a stream of type {message_type} "
        "with role proprioception"
    )


def _camera_info(camera: CameraModel, frame: str) -> CameraInfo:
    info = CameraInfo(height=camera.height, width=camera.width, distortion_model="plumb_bob")
    info.header.frame_id = frame
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    info.d = [0.0] * 5
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class RobotPublishers:
    """Publishes joints, tool, depth, camera info, ground truth, and clock and colour if asked."""

    def __init__(self, node: Node, world: PushWorld, *, lockstep: bool, colour: bool) -> None:
        task = world.task
        joints = proprioceptive_stream(task, "sensor_msgs/msg/JointState")
        tool = proprioceptive_stream(task, "geometry_msgs/msg/PoseStamped")

        def publisher(kind: Any, name: str) -> Any:
            stream = task.streams[name]
            return node.create_publisher(kind, stream.topic, qos_for(stream, lockstep))

        self._joints = publisher(JointState, joints)
        self._tool = publisher(PoseStamped, tool)
        self._depth = publisher(Image, task.camera.depth)
        self._info = publisher(CameraInfo, task.camera.camera_info)
        self._truth = node.create_publisher(SimState, GROUND_TRUTH_TOPIC, command_qos())
        self._clock = node.create_publisher(Clock, "/clock", command_qos()) if lockstep else None
        self._colour = node.create_publisher(Image, COLOUR_TOPIC, command_qos()) if colour else None

        camera = world.camera
        self._joint_msg = JointState(name=list(task.joint_names))
        self._joint_msg.header.frame_id = task.base_frame
        self._tool_msg = PoseStamped()
        self._tool_msg.header.frame_id = task.base_frame
        self._tool_msg.pose.orientation.w = 1.0
        self._tool_msg.pose.position.z = world.tool_height
        self._depth_msg = self._image(camera, task.camera.frame, "16UC1", 2)
        self._colour_msg = self._image(camera, task.camera.frame, "rgb8", 3)
        self._info_msg = _camera_info(camera, task.camera.frame)
        self._truth_msg = SimState()
        self._truth_msg.header.frame_id = task.base_frame
        self._clock_msg = Clock()
        self._pixels = array("B", bytes(2 * camera.width * camera.height))

    @staticmethod
    def _image(camera: CameraModel, frame: str, encoding: str, pixel_bytes: int) -> Image:
        image = Image(height=camera.height, width=camera.width, encoding=encoding)
        image.header.frame_id = frame
        image.step = camera.width * pixel_bytes
        return image

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

    def depth(self, stamp_ns: int, image: NDArray[np.uint16]) -> None:
        """Publish the depth image and its camera info."""
        message = self._depth_msg
        message.header.stamp = self._info_msg.header.stamp = _time(stamp_ns)
        np.frombuffer(self._pixels, dtype="<u2")[:] = image.reshape(-1)
        message.data = self._pixels
        self._info.publish(self._info_msg)
        self._depth.publish(message)

    def colour(self, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Publish the colour image."""
        if self._colour is not None:
            self._colour_msg.header.stamp = _time(stamp_ns)
            self._colour_msg.data = array("B", image.tobytes())
            self._colour.publish(self._colour_msg)

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
