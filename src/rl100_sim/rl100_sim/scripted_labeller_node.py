"""ROS node ``rl100_scripted_labeller``: says success or failure from the simulator's ground truth.

Success in the tick in which the task is solved, failure in the tick in which the step limit is
reached; one verdict for each episode.
"""

from __future__ import annotations

from rclpy.node import Node
from rl100_contracts.task import load_task
from rl100_msgs.msg import RewardEvent, SimState

from rl100_sim.node_main import describe, spin_node

REWARD_TOPIC = "/rl100/reward"
GROUND_TRUTH_TOPIC = "/sim/ground_truth"
DEPTH = 50


class ScriptedLabellerNode(Node):
    """Publishes one RewardEvent at the end of each simulated episode."""

    def __init__(self) -> None:
        super().__init__("rl100_scripted_labeller")
        self.declare_parameter(
            "task", "push", describe("name of a built-in task, or path of a task file")
        )
        self._reward = load_task(str(self.get_parameter("task").value)).reward
        self._labelled = True  # until an episode is seen running
        self._publisher = self.create_publisher(RewardEvent, REWARD_TOPIC, DEPTH)
        self.create_subscription(SimState, GROUND_TRUTH_TOPIC, self._on_truth, DEPTH)

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
    spin_node(ScriptedLabellerNode)


if __name__ == "__main__":
    main()
