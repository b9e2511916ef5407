"""Policy node and command gateway together, as processes in real time, when things go wrong.

Pins: with a stopped camera, a policy that is killed and one that is too slow the robot holds, both
nodes say why, and it goes on by itself, or with the previous bundle. Where a person arms the
policy, one that was killed and restarted, with the bundle of its start, waits for that person; a
pushed bundle does not.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from std_srvs.srv import Trigger

from rl100_contracts.task import Task
from rl100_msgs.msg import ExecutedAction
from rl100_msgs.srv import LoadBundle
from rl100_node.testing import Graph
from rl100_policy_node.live_robot import LiveRobot
from rl100_policy_node.testing import heavy_graph

pytestmark = pytest.mark.integration

MakeBundle = Callable[..., Path]
POLICY_NODE, GATEWAY = "rl100_policy_node.main", "rl100_control.main"


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


class System:
    """Both nodes, and a robot that is where it was told to be."""

    def __init__(self, graph: Graph, task: Task, bundle: Path, *, arming: bool = False) -> None:
        self.graph, self._bundle = graph, bundle
        self.gateway = graph.start(GATEWAY, mode="policy", arming=arming)
        self.start_policy()
        self.executed = graph.record(ExecutedAction, "/rl100/executed_action")
        self.diagnostics = graph.record(DiagnosticArray, "/diagnostics")
        self.robot = LiveRobot(graph, task)
        graph.node.create_subscription(PoseStamped, "/tool_target", self._follow, 1)

    def start_policy(self) -> None:
        self.policy = self.graph.start(POLICY_NODE, bundle=self._bundle)

    def _follow(self, command: PoseStamped) -> None:
        self.robot.place = command.pose.position.x, command.pose.position.y

    def moving(self) -> None:
        start = len(self.executed)
        self.graph.wait(lambda: sum(not t.hold for t in self.executed[start:]) > 5, "motion")

    def held(self, reason: str, *said: str) -> None:
        """The robot holds for a reason for half a second, and the diagnostics have sentences."""
        heard = len(self.diagnostics)

        def told(words: str) -> bool:
            arrays = self.diagnostics[heard:]
            return any(words in status.message for array in arrays for status in array.status)

        self.graph.wait(lambda: reason in self.executed[-1].reason, f"a hold: {reason}")
        for words in (reason, *said):
            self.graph.wait(lambda words=words: told(words), f"on /diagnostics: {words}")
        start = len(self.executed)
        self.graph.spin(0.5)
        assert all(tick.hold for tick in self.executed[start:])

    def arm(self) -> None:
        assert self.graph.call(Trigger, "/rl100_gateway/arm").success

    def load(self, **request: object) -> LoadBundle.Response:
        return self.graph.call(LoadBundle, "/rl100_policy/load_bundle", **request)


def test_the_robot_holds_and_goes_on(
    graph: Graph, make_bundle: MakeBundle, task: Task, tmp_path: Path
) -> None:
    system = System(graph, task, make_bundle("good"))
    system.moving()

    system.robot.stopped.add("points")
    topic = task.streams["points"].topic
    system.held("the policy's last plan has run out", f"no message on {topic} for more than")
    system.robot.stopped.clear()
    system.moving()

    system.policy.send_signal(signal.SIGKILL)
    system.held("the policy's last plan has run out")
    system.start_policy()
    system.moving()

    slow = make_bundle("slow", policy=heavy_graph(task, products=9, size=1500))
    assert system.load(path=str(slow)).accepted
    system.held("no action is due", "a decision takes longer than its chunk lasts")
    assert system.load(previous=True).accepted
    system.moving()
    graph.stop(system.policy)
    graph.stop(system.gateway)


def test_a_restarted_policy_has_to_be_armed_again(
    graph: Graph, make_bundle: MakeBundle, task: Task
) -> None:
    system = System(graph, task, make_bundle("good"), arming=True)
    graph.wait(lambda: bool(system.executed), "a tick")
    system.held("not armed")
    system.arm()
    system.moving()
    assert system.load(path=str(make_bundle("pushed"))).accepted
    graph.wait(lambda: system.executed[-1].policy_version == "pushed", "the pushed bundle")
    system.moving()

    system.policy.send_signal(signal.SIGKILL)
    system.held("the policy's last plan has run out")
    system.start_policy()
    system.held("the policy started again with good instead of pushed: arm it (rl100 arm)")
    system.arm()
    system.moving()
    graph.stop(system.policy)
    graph.stop(system.gateway)
