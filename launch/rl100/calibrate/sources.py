"""Live topics for calibration: pictures, camera info, and where the tool is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import decode_joints, message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.pose import message_rotation, rotation_of
from rl100_contracts.task import JOINT_STATE, POSE_STAMPED, Task
from rl100_perception.calibration.capture import PoseHistory
from rl100_perception.calibration.hand_eye import transform

FloatArray = NDArray[np.float64]
PATIENCE_S = 10.0


class ToolPose:
    """Where the tool is, from the topic of a task: a PoseStamped, or joints and the URDF.

    Args:
        task: names the topic.
        folder: of the task file, to which the URDF's path is relative.

    Raises:
        ContractError: the task has neither.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        self._task = task
        first = [task.action.feedback, *task.proprioception_streams]
        poses = [name for name in first if task.streams[name].type == POSE_STAMPED]
        self._model: Any = None
        if poses:
            self.stream = poses[0]
        elif task.robot is not None:
            from rl100_control.robot_model import RobotModel

            self.stream = task.robot.joint_states
            self._model = RobotModel(task, folder)
        else:
            raise ContractError(
                f"task '{task.name}' does not say where the tool is: give it a stream of type "
                f"{POSE_STAMPED} in observation.proprioception, or the key robot with a URDF"
            )
        self.topic = task.streams[self.stream].topic

    @property
    def message_type(self) -> Any:
        """Class of the messages."""
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

        kind = self._task.streams[self.stream].type
        return JointState if kind == JOINT_STATE else PoseStamped

    def pose(self, message: Any) -> FloatArray:
        """Tool frame in the base frame, (4, 4), m.

        Raises:
            ContractError: a pose in another frame, an orientation that is no unit quaternion, or a
                joint that is missing.
        """
        if self._model is not None:
            position, quaternion = self._model.forward(decode_joints(self._task, message))
            return transform(rotation_of(quaternion).as_matrix(), position)
        frame, base = message.header.frame_id, self._task.base_frame
        if frame and frame != base:
            raise ContractError(
                f"{self.topic} gives the tool in '{frame}', but base_frame of the task is "
                f"'{base}': mend one of them"
            )
        try:
            rotation = message_rotation(message.pose)
        except ContractError as error:
            raise ContractError(f"{self.topic}: {error}") from None
        p = message.pose.position
        return transform(rotation.as_matrix(), np.array([p.x, p.y, p.z]))


class Source:
    """Newest messages of some topics, and the history of the tool's poses.

    Args:
        topics: name -> (message type, topic).
        tool: where the tool is; None: nothing moves.
    """

    def __init__(self, topics: dict[str, tuple[Any, str]], tool: ToolPose | None) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        from rl100.own_node import OwnNode

        self._own = OwnNode("rl100_calibrate")
        self._topics, self._tool = topics, tool
        self.newest: dict[str, Any] = {}
        self.poses = PoseHistory()
        self._problem = ""
        # Best effort hears reliable publishers, too.
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        many = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
        node = self._own.node
        for name, (kind, topic) in topics.items():
            node.create_subscription(kind, topic, self._keep(name), newest)
        if tool is not None:
            node.create_subscription(tool.message_type, tool.topic, self._on_pose, many)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def _keep(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self.newest[name] = message

        return keep

    def _on_pose(self, message: Any) -> None:
        assert self._tool is not None
        try:
            self.poses.add(message_stamp_ns(message), self._tool.pose(message))
        except ContractError as error:
            self._problem = str(error)

    def spin_once(self, timeout_s: float = 0.05) -> None:
        """Handle one message.

        Raises:
            ContractError: the robot's pose cannot be used.
        """
        self._own.spin_once(timeout_s)
        if self._problem:
            raise ContractError(self._problem)

    def spin(self, seconds: float) -> None:
        """Handle messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin_once()

    def next_image(self) -> Any:
        """The next image, not one from before, with the poses around it; see ``wait``."""
        self.newest.pop("image", None)
        self.wait()
        message = self.newest["image"]
        stamp_ns = message_stamp_ns(message)
        end = time.monotonic() + 1.0
        while not self.poses.covers(stamp_ns) and time.monotonic() < end:
            self.spin_once()
        return message

    def wait(self) -> None:
        """Wait for the first message of each topic.

        Raises:
            ContractError: one does not come, with what can be done.
        """
        end = time.monotonic() + PATIENCE_S
        while missing := self._missing():
            if time.monotonic() > end:
                raise ContractError(self._sentence(*missing[0]))
            self.spin_once()

    def _missing(self) -> list[tuple[str, str]]:
        wanted = [(n, topic) for n, (_, topic) in self._topics.items() if n not in self.newest]
        if self._tool is not None and self.poses.empty:
            wanted.append(("pose of the robot", self._tool.topic))
        return wanted

    def _sentence(self, name: str, topic: str) -> str:
        node = self._own.node
        if not node.count_publishers(topic):
            topics = (name for name, _ in node.get_topic_names_and_types())
            known = sorted(t for t in topics if t.count("/") > 1 and node.count_publishers(t))
            near = [t for t in known if t.split("/")[1] == topic.split("/")[1]]
            there = f" (there: {', '.join(near[:6])})" if near else ""
            return (
                f"no {name} on {topic}: nobody publishes it{there}; is the driver running, on this "
                "ROS_DOMAIN_ID?"
            )
        return f"no {name} on {topic} within {PATIENCE_S:g} s, although there is a publisher"
