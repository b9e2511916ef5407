"""``rl100 mode``, ``arm`` and ``stop`` against a real gateway: what they print, that a stop latches
until it is cleared, that a refusal is one sentence with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from geometry_msgs.msg import PoseStamped
from run_command import rl100_beside

from rl100_node.testing import Graph

pytestmark = pytest.mark.integration


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def rl100(graph: Graph, *words: str) -> tuple[int, str]:
    """Exit status and all that a command prints; the graph goes on meanwhile."""
    code, output, errors = rl100_beside(graph, *words)
    return code, output + errors


def test_a_mode_that_is_unknown_is_one_sentence(graph: Graph) -> None:
    code, output = rl100(graph, "mode", "polcy")
    assert code == 2 and output.count("\n") == 1
    assert output.startswith("error: mode 'polcy' is unknown: choose one of idle, teleop, policy")
    assert "did you mean 'policy'" in output


def test_an_operator_stops_clears_and_arms(graph: Graph) -> None:
    process = graph.start("rl100_control.main", mode="policy")
    pose = graph.publisher(PoseStamped, "/tool_pose")
    code, output = rl100(graph, "arm")
    assert code == 2 and "position is not known yet" in output
    for _ in range(4):  # the first position is believed when some agree
        message = PoseStamped()
        message.header.stamp = graph.node.get_clock().now().to_msg()
        pose.publish(message)
        graph.spin(0.05)
    code, output = rl100(graph, "mode")
    assert code == 0 and output.startswith("policy, not armed, holding:")
    assert rl100(graph, "arm") == (
        0,
        "armed: the policy moves the robot in mode policy, until the next stop\n",
    )
    code, output = rl100(graph, "stop")
    assert (code, output) == (0, "mode stopped\n")
    code, output = rl100(graph, "mode", "policy")
    assert code == 2 and "rl100 mode policy --clear-stop" in output
    assert rl100(graph, "mode", "policy", "--clear-stop") == (0, "mode policy\n")
    assert "policy, not armed" in rl100(graph, "mode")[1]
    graph.stop(process)


def test_no_gateway_is_one_sentence(graph: Graph) -> None:
    code, output = rl100(graph, "stop")
    assert code == 2 and "is the gateway running" in output and output.count("\n") == 1
