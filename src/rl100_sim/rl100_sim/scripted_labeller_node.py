"""ROS node ``rl100_scripted_labeller``: says success or failure from the simulator's ground truth.

Success in the tick in which the task is solved, failure in the tick in which the step limit is
reached; one verdict for each episode.
"""

from __future__ import annotations

from rclpy.node import Node

from rl100_msgs.msg import RewardEvent, SimState
from rl100_node.parameters import declare_task
from rl100_node.qos import command_qos
from rl100_node.running import run_node

REWARD_TOPIC = "/rl100/reward"
GROUND_TRUTH_TOPIC = "/sim/ground_truth"


class ScriptedLabellerNode(Node):
    """Publishes one RewardEvent at the end of each simulated episode."""

    def __init__(self) -> None:
        super().__init__("rl100_scripted_labeller")
        self._reward = declare_task(self).reward
        self._labelled = True  # until an episode is seen running
        self._publisher = self.create_publisher(RewardEvent, REWARD_TOPIC, command_qos())
        self.create_subscription(SimState, GROUND_TRUTH_TOPIC, self._on_truth, command_qos())

    def _on_truth(self, msg: SimState) -> None:
        if not msg.done:
            self._labelled = False
            return
        if self._labelled:
            return
        self._labelled = True
        event = RewardEvent(labeller="scripted")
        event.header.stamp = msg.header.stamp
        event.kind = RewardEvent.SUCCESS if msg.success else RewardEvent.FAILURE
        event.value = self._reward.success if msg.success else 0.0
        self._publisher.publish(event)


def main() -> None:
    """Entry point."""
    run_node("rl100_sim.scripted_labeller_node:ScriptedLabellerNode")


if __name__ == "__main__":
    main()
