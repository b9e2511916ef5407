"""The messages that the gateway sends: commands in the robot's type, and what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped, TwistStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from rl100_contracts.decode import split_ns
from rl100_contracts.task import NANOSECONDS, Task
from rl100_control.tick import FloatArray, Tick
from rl100_msgs.msg import ExecutedAction


def pose_command(task: Task, tick: Tick) -> PoseStamped:
    """The target as a pose of the tool in the base frame, stamped with the tick."""
    pose = PoseStamped()
    pose.header.frame_id = task.base_frame
    pose.header.stamp.sec, pose.header.stamp.nanosec = split_ns(tick.stamp_ns)
    position, quaternion = task.action.coordinates.pose(tick.target)
    p, q = pose.pose.position, pose.pose.orientation
    p.x, p.y, p.z = position.tolist()
    q.x, q.y, q.z, q.w = quaternion.tolist()
    return pose


def twist_command(task: Task, tick: Tick) -> TwistStamped:
    """The velocity of the step to the target, in the base frame (m/s, rad/s); zero in a hold."""
    twist = TwistStamped()
    twist.header.frame_id = task.base_frame
    twist.header.stamp.sec, twist.header.stamp.nanosec = split_ns(tick.stamp_ns)
    period_s = task.control.period_ns / NANOSECONDS
    before = tick.target - tick.velocity * period_s
    # Not tick.velocity itself: rotation coordinates change faster than the tool turns.
    linear, angular = task.action.coordinates.twist(before, tick.target, period_s)
    for vector, values in ((twist.twist.linear, linear), (twist.twist.angular, angular)):
        vector.x, vector.y, vector.z = values.tolist()
    return twist


def array_command(_task: Task, tick: Tick) -> Float64MultiArray:
    """The target in the order of the task's names, for ros2_control's forward controllers."""
    return Float64MultiArray(data=tick.target.tolist())


def trajectory_command(task: Task, tick: Tick) -> JointTrajectory:
    """The target as one point that is to be reached one control period from now on.

    The stamp is zero, which means "now": a trajectory that begins in the past is refused by
    controllers, so clocks that differ a little would stop the robot. It has no velocity:
    joint_trajectory_controller refuses a trajectory that ends in motion, unless it is told
    otherwise, and would then follow the holds only.
    """
    sec, nanosec = split_ns(task.control.period_ns)
    point = JointTrajectoryPoint(
        positions=tick.target.tolist(),
        time_from_start=Duration(sec=sec, nanosec=nanosec),
    )
    return JointTrajectory(joint_names=list(task.action.names), points=[point])


COMMANDS: dict[str, Callable[[Task, Tick], Any]] = {
    "geometry_msgs/msg/PoseStamped": pose_command,
    "geometry_msgs/msg/TwistStamped": twist_command,
    "std_msgs/msg/Float64MultiArray": array_command,
    "trajectory_msgs/msg/JointTrajectory": trajectory_command,
}


def _list(values: FloatArray | None) -> list[float]:
    return [] if values is None else values.tolist()


def executed_message(task: Task, tick: Tick) -> ExecutedAction:
    """Everything about a tick."""
    msg = ExecutedAction(
        mode=int(tick.mode),
        hold=tick.hold,
        limited=tick.limited,
        action=tick.action.tolist(),
        target=tick.target.tolist(),
        feedback=tick.feedback.tolist(),
        reason=tick.reason,
        planned_target=_list(tick.planned_target),
        sent=tick.send,
    )
    msg.header.stamp.sec, msg.header.stamp.nanosec = split_ns(tick.stamp_ns)
    if task.action.is_cartesian:
        msg.header.frame_id = task.base_frame
    if tick.planned is not None:
        chunk = tick.planned.chunk
        msg.source, msg.policy_version = chunk.source, chunk.policy_version
        msg.chunk_sequence, msg.chunk_index = chunk.sequence, tick.planned.index
        msg.raw_action = chunk.actions[tick.planned.index].tolist()
    if tick.shadow is not None:
        planned = tick.shadow.planned
        msg.shadow_version = planned.chunk.policy_version
        msg.shadow_sequence, msg.shadow_index = planned.chunk.sequence, planned.index
        msg.shadow_raw_action = planned.chunk.actions[planned.index].tolist()
        msg.shadow_action = tick.shadow.action.tolist()
        msg.shadow_target = tick.shadow.target.tolist()
        msg.shadow_deviation = tick.shadow.deviation
    return msg
