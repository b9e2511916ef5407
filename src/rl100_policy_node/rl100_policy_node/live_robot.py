"""For tests: a robot that publishes what a policy observes, in real time."""

from __future__ import annotations

import array
import time

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState, PointCloud2, PointField

from rl100_contracts.decode import split_ns
from rl100_contracts.task import Task
from rl100_node.qos import command_qos
from rl100_node.testing import Graph


class LiveRobot:
    """Publishes observations at the control rate while the test's node spins.

    ``stopped``: streams that are silent; ``shift_ns``: added to every stamp; ``stamps``: so far;
    ``place``: of the tool, x and y, m.
    """

    def __init__(self, graph: Graph, task: Task) -> None:
        self.stopped: set[str] = set()
        self.shift_ns = 0
        self.place = (0.0, 0.0)
        self.stamps: list[int] = []
        self._task = task
        kinds = {"joint_states": JointState, "tool_pose": PoseStamped, "points": PointCloud2}
        self._publishers = {
            name: graph.node.create_publisher(kind, task.streams[name].topic, command_qos())
            for name, kind in kinds.items()
        }
        for name, publisher in self._publishers.items():

            def found(publisher: Publisher = publisher) -> bool:
                return publisher.get_subscription_count() > 0

            graph.wait(found, f"the reader of {name}")
        graph.introduce(*(task.streams[name].topic for name in kinds))
        graph.node.create_timer(task.control.period_ns * 1e-9, self._tick)

    def _message(self, name: str) -> JointState | PoseStamped | PointCloud2:
        if name == "joint_states":
            return JointState(name=self._task.joint_names, position=[0.1, 0.2])
        if name == "tool_pose":
            pose = PoseStamped()
            pose.pose.position.x, pose.pose.position.y = self.place
            return pose
        count = self._task.observation.num_points
        cloud = PointCloud2(height=1, width=count, point_step=12, row_step=12 * count)
        cloud.fields = [
            PointField(name=axis, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, axis in enumerate("xyz")
        ]
        cloud.data = array.array("B", np.zeros((count, 3), "<f4").tobytes())
        return cloud

    def _tick(self) -> None:
        stamp_ns = time.time_ns() + self.shift_ns
        self.stamps.append(stamp_ns)
        for name, publisher in self._publishers.items():
            if name not in self.stopped:
                message = self._message(name)
                message.header.stamp.sec, message.header.stamp.nanosec = split_ns(stamp_ns)
                publisher.publish(message)
