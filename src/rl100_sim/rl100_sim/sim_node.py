"""ROS node ``rl100_sim``: the simulated robot and camera behind the topics of real ones.

Lockstep: the observations of tick t are published with stamp t, then the world waits for a command
on the task's command topic that carries stamp t. A reset moves the clock on by a second or more.
Real time: physics follows the wall clock, and so do all stamps.
"""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.task import NANOSECONDS
from rl100_msgs.srv import ResetWorld
from rl100_node.parameters import declare, declare_lockstep, declare_task
from rl100_node.qos import command_qos
from rl100_node.running import run_node
from rl100_sim.playable import check_playable
from rl100_sim.publishing import RobotPublishers
from rl100_sim.scene import Randomisation
from rl100_sim.world import ImageSize, PushWorld

RESET_SERVICE = "/rl100_sim/reset"
MAX_LAG_S = 0.25  # real time: physics further behind the wall clock than this is skipped


class SimNode(Node):
    """The simulated robot."""

    def __init__(self) -> None:
        super().__init__("rl100_sim")
        task = declare_task(self)
        check_playable(task)
        self._lockstep = declare_lockstep(self)
        seed = declare(
            self, "seed", 0, "seed of the start before the first reset", low=0, high=2**62
        )
        scale = declare(
            self,
            "randomisation",
            1.0,
            "how far physics varies: 0 is nominal, 1 the default",
            low=0.0,
            high=2.0,
        )
        width = declare(
            self, "image_width", 128, "of the camera's images, pixels", low=16, high=1280
        )
        height = declare(
            self, "image_height", 96, "of the camera's images, pixels", low=12, high=960
        )
        feedback_hz = declare(
            self,
            "feedback_rate_hz",
            100.0,
            "real time: joint states and tool pose, Hz",
            low=1.0,
            high=200.0,
        )
        timeout_s = declare(
            self,
            "command_timeout_s",
            0.3,
            "real time: hold after so long without a command, s",
            low=0.05,
            high=60.0,
        )
        self._patience_s = declare(
            self,
            "lockstep_timeout_s",
            10.0,
            "lockstep: warn after so long without a command, s",
            low=0.1,
            high=3600.0,
        )
        colour = declare(self, "rgb", False, "publish colour images also if the task observes none")
        self._task = task
        self._world = PushWorld(
            task,
            randomisation=Randomisation(scale=scale),
            image=ImageSize(width, height),
            command_timeout_s=None if self._lockstep else timeout_s,
        )
        self._world.reset(seed)
        self._publish = RobotPublishers(self, self._world, lockstep=self._lockstep, colour=colour)
        self._period_ns = task.control.period_ns
        self._stamp_ns = 0
        self._waiting = False
        self._ignored: set[str] = set()
        self._last_progress = self._last_wall = time.monotonic()
        self._owed_s, self._ticks = 0.0, 0
        self._camera_every = max(1, round(feedback_hz / task.control.rate_hz))
        self.create_subscription(PoseStamped, task.action.command, self._on_command, command_qos())
        self.create_service(ResetWorld, RESET_SERVICE, self._on_reset)
        # A timer on simulated time would stand still exactly when it is needed.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._lockstep:
            self.create_timer(1.0, self._check_progress, clock=steady)
        else:
            self.create_timer(1.0 / feedback_hz, self._on_timer, clock=steady)
        mode = "lockstep, waits for a reset" if self._lockstep else "real time"
        self.get_logger().info(f"simulated robot of task '{task.name}' is ready ({mode})")

    # --- commands

    def _ignore(self, kind: str, sentence: str) -> None:
        """Ignore a command; say why the first time only."""
        if kind not in self._ignored:
            self._ignored.add(kind)
            self.get_logger().warning(f"{sentence}; ignored, as will be others like it")

    def _on_command(self, msg: PoseStamped) -> None:
        topic, frame = self._task.action.command, msg.header.frame_id
        x, y = float(msg.pose.position.x), float(msg.pose.position.y)
        usable = frame in ("", self._task.base_frame)
        if not usable:
            self._ignore(
                "frame",
                f"a command on {topic} is in frame '{frame}' instead of '{self._task.base_frame}'",
            )
        if self._lockstep and not self._waiting:
            return  # after the last tick of an episode: there is nothing left to move
        if self._lockstep and message_stamp_ns(msg) != self._stamp_ns:
            self._ignore(
                "stamp",
                f"a command on {topic} has stamp {message_stamp_ns(msg)} ns, not that of the "
                f"running tick, {self._stamp_ns} ns",
            )
            return
        if usable and not self._world.command(x, y):
            self._ignore(
                "target", f"the robot can't reach the command ({x:.3f}, {y:.3f}) on {topic}"
            )
        if self._lockstep:
            # Refused or not, the tick has its command: the robot goes on towards its last target.
            self._world.advance(self._world.substeps)
            self._stamp_ns += self._period_ns
            self._publish_tick()

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._world.reset(int(request.seed))
        if self._lockstep:
            # At least a second later, on a whole second: no history reaches across a reset.
            self._stamp_ns = (self._stamp_ns // NANOSECONDS + 2) * NANOSECONDS
            self._publish_tick()
        else:
            self._owed_s, self._ticks = 0.0, 0
            self._last_wall = time.monotonic()
            self._stamp_ns = time.time_ns()
            self._publish_tick()
        response.success = True
        response.stamp.sec, response.stamp.nanosec = split_ns(self._stamp_ns)
        return response

    # --- observations

    def _publish_tick(self) -> None:
        """Publish everything that belongs to a control tick, ground truth last."""
        stamp, publish, world = self._stamp_ns, self._publish, self._world
        truth = world.truth()
        self._waiting = not truth.done
        self._last_progress = time.monotonic()
        publish.clock(stamp)
        publish.images(stamp, world)
        publish.truth(stamp, truth)
        publish.proprioception(stamp, world.proprioception())

    def _check_progress(self) -> None:
        waited = time.monotonic() - self._last_progress
        if not self._waiting or waited < self._patience_s:
            return
        self._last_progress = float("inf")  # say it once per tick
        topic = self._task.action.command
        publishers = self.count_publishers(topic)
        self.get_logger().warning(
            f"lockstep: no command with stamp {self._stamp_ns} ns came on {topic} for "
            f"{waited:.0f} s ({publishers} publishers there); start the command gateway with "
            "lockstep true, then reset the world"
        )

    def _on_timer(self) -> None:
        """Real time: catch up with the wall clock, then publish."""
        now = time.monotonic()
        self._owed_s += now - self._last_wall
        self._last_wall = now
        timestep = self._world.scene.timestep
        if self._owed_s > MAX_LAG_S:
            self._ignore(
                "lag", f"the simulation fell {self._owed_s:.2f} s behind real time; time skipped"
            )
            self._owed_s = timestep
        steps = int(self._owed_s / timestep)
        self._owed_s -= steps * timestep
        self._world.advance(steps)
        self._ticks += 1
        self._stamp_ns = time.time_ns()
        if self._ticks % self._camera_every == 0:
            self._publish_tick()
        else:
            self._publish.proprioception(self._stamp_ns, self._world.proprioception())


def main() -> None:
    """Entry point."""
    run_node("rl100_sim.sim_node:SimNode")


if __name__ == "__main__":
    main()
