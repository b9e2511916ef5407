"""ROS node ``rl100_scripted_teleop``: a teleoperator that never tires, for simulation.

Each ground truth of a tick gives one action, sent as a chunk of one on the teleoperation topic.
"""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.decode import message_stamp_ns
from rl100_contracts.task import NANOSECONDS
from rl100_msgs.msg import ActionChunk, SimState
from rl100_node.parameters import declare, declare_task
from rl100_node.qos import command_qos
from rl100_node.running import run_node
from rl100_sim.expert import ExpertNoise, PushExpert
from rl100_sim.playable import check_scripted

TELEOP_TOPIC = "/rl100/teleop_chunk"
GROUND_TRUTH_TOPIC = "/sim/ground_truth"


class ScriptedTeleopNode(Node):
    """Publishes the scripted expert's action for each tick."""

    def __init__(self) -> None:
        super().__init__("rl100_scripted_teleop")
        usual = ExpertNoise.demonstration()
        self._task = declare_task(self)
        std = declare(
            self,
            "noise",
            usual.std,
            "injected noise (standard deviation) as a part of the largest step; 0: none",
            low=0.0,
            high=5.0,
        )
        correlation = declare(
            self,
            "noise_correlation",
            usual.correlation,
            "correlation of the noise from step to step",
            low=0.0,
            high=0.999,
        )
        self._seed = declare(
            self, "seed", 0, "added to each episode's seed for the noise", low=0, high=2**62
        )
        self._expert = PushExpert(check_scripted(self._task), noise=ExpertNoise(std, correlation))
        self._life_ns = round(self._task.safety.chunk_timeout_s * NANOSECONDS)
        self._sequence = 0
        self._last = (-1, -1)  # seed and step of the last tick
        self._message = ActionChunk()
        self._publisher = self.create_publisher(ActionChunk, TELEOP_TOPIC, command_qos())
        self.create_subscription(SimState, GROUND_TRUTH_TOPIC, self._on_truth, command_qos())

    def _on_truth(self, msg: SimState) -> None:
        seed, step = int(msg.seed), int(msg.step)
        if step == 0 or seed != self._last[0] or step < self._last[1]:
            self._expert.reset(seed + self._seed)
        self._last = (seed, step)
        if msg.done:
            return
        action = self._expert.act(
            tool_xy=np.asarray(msg.tool_position[:2]),
            target_xy=np.asarray(msg.tool_target[:2]),
            block_xy=np.asarray(msg.block_position[:2]),
            block_yaw=float(msg.block_yaw),
            goal_xy=np.asarray(msg.goal_position[:2]),
        )
        self._sequence += 1
        stamp = message_stamp_ns(msg)
        chunk = Chunk(
            sequence=self._sequence,
            source="scripted",
            policy_version="",
            observation_ns=stamp,
            stamps_ns=np.array([stamp], dtype=np.int64),
            actions=action[None].astype(np.float32),
            expires_ns=stamp + self._life_ns,
        )
        self._publisher.publish(fill_message(self._message, chunk, self._task.base_frame, Time))


def main() -> None:
    """Entry point."""
    run_node("rl100_sim.scripted_teleop_node:ScriptedTeleopNode")


if __name__ == "__main__":
    main()
