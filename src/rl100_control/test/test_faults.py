"""Faults of a running gateway, each through real processes: it holds or goes on with the old plan,
says why in one sentence on /diagnostics, and recovers without a restart where that is safe.

Pins: joint states stop; one of them is wrong; the clock jumps; the gateway is killed; chunks that
are NaN, infinite, of the wrong shape, beyond the limits, from the past, from the future, repeated,
out of order; two policies at once, on the same frames too; a policy that is killed and restarted;
a second gateway, another publisher of commands; a dead-man switch whose process dies; a stop
reaches the robot; the report at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from rl100_contracts.chunks import Chunk, fill_message
from rl100_contracts.decode import split_ns
from rl100_contracts.task import load_task
from rl100_msgs.msg import ActionChunk, ExecutedAction, GatewayStatus, RewardEvent
from rl100_msgs.srv import SetMode
from rl100_node.qos import latched_qos
from rl100_node.testing import PATIENCE_S, Graph

pytestmark = pytest.mark.integration

TASK = load_task("push")
DT = TASK.control.period_ns
STEP = [0.002, 0.0]


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


class Bench:
    """A gateway, a robot that is where it was told to be, and a policy that is the test itself."""

    def __init__(self, graph: Graph, clock: Callable[[], int] = time.time_ns, **parameters: object):
        self.graph, self.clock = graph, clock
        self.process = graph.start(
            "rl100_control.main", **{"mode": "policy", "arming": False, **parameters}
        )
        self.feedback = graph.publisher(PoseStamped, "/tool_pose")
        self.chunks = graph.publisher(ActionChunk, "/rl100/action_chunk")
        self.commands = graph.record(PoseStamped, "/tool_target")
        self.executed = graph.record(ExecutedAction, "/rl100/executed_action")
        self.diagnostics = graph.record(DiagnosticArray, "/diagnostics")
        self.sequence, self.sent_ns = 0, 0
        self.alive = True  # the robot's driver
        self.planning = False  # the policy

    def plan(self, actions: object, start: int | None = None, **fields: object) -> ActionChunk:
        now = self.clock()
        values = np.asarray(actions, dtype=np.float32)
        first = now + DT if start is None else start
        stamps = first + DT * np.arange(len(values), dtype=np.int64)
        sequence = int(str(fields.get("sequence", self.sequence + 1)))
        self.sequence = max(self.sequence, sequence)
        chunk = Chunk(sequence, "policy", "v1", now, stamps, values, int(stamps[-1]) + DT)
        return fill_message(ActionChunk(), chunk, "base_link", Time)

    def step(self) -> None:
        """Some milliseconds of a robot and a policy."""
        now = self.clock()
        if self.alive:
            message = PoseStamped()
            message.header.stamp.sec, message.header.stamp.nanosec = split_ns(now)
            if self.commands:
                here = self.commands[-1].pose.position
                message.pose.position.x, message.pose.position.y = here.x, here.y
            self.feedback.publish(message)
        if self.planning and abs(now - self.sent_ns) > 2 * DT:
            self.sent_ns = now
            self.chunks.publish(self.plan([STEP] * 6))
        self.graph.spin(0.015)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self.step()

    def run(self, seconds: float) -> list[ExecutedAction]:
        """Go on for a while; the ticks since."""
        start, end = len(self.executed), time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()
        return self.executed[start:]

    def moving(self) -> None:
        """Wait for three ticks of motion from now on."""
        self.planning, start = True, len(self.executed)
        self.until(lambda: sum(not t.hold for t in self.executed[start:]) >= 3, "motion")

    def held(self, words: str) -> None:
        """Wait for a hold with these words, and for them on /diagnostics."""
        start, heard = len(self.executed), len(self.diagnostics)
        self.until(
            lambda: any(t.hold and words in t.reason for t in self.executed[start:]),
            f"a hold: {words}",
        )
        self.told(words, heard)

    def told(self, words: str, since: int) -> None:
        self.until(
            lambda: any(words in s.message for a in self.diagnostics[since:] for s in a.status),
            f"on /diagnostics: {words}",
        )


def test_joint_states_stop_and_come_back(graph: Graph) -> None:
    bench = Bench(graph)
    bench.moving()
    bench.alive = False
    bench.held("no feedback on /tool_pose for more than 0.2 s")
    bench.alive = True
    bench.moving()
    graph.stop(bench.process)


@pytest.mark.parametrize("jump_s", [30.0, -30.0, -0.3])
def test_the_clock_jumps(graph: Graph, jump_s: float) -> None:
    offset = [0]
    bench = Bench(graph, lambda: time.time_ns() + offset[0], use_sim_time=True)
    clocks = graph.publisher(Clock, "/clock")

    class Ticking:
        """Publishes the clock with each step of the bench."""

        def __init__(self) -> None:
            self._step = bench.step

        def __call__(self) -> None:
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = split_ns(bench.clock())
            clocks.publish(clock)
            self._step()

    bench.step = Ticking()  # type: ignore[method-assign]
    bench.moving()
    before = bench.commands[-1].pose.position
    bench.planning = False
    bench.chunks.publish(bench.plan([STEP] * 40))
    bench.run(0.3)
    # A tick between two messages on /clock has nothing due, so one hold says nothing.
    bench.until(lambda: not bench.executed[-1].hold, "the long plan")
    offset[0] = round(jump_s * 1e9)
    bench.run(0.1)
    ticks = bench.run(0.3)
    if abs(jump_s) > 1.0:
        assert ticks and all(tick.hold for tick in ticks), "a plan from before the jump went on"
    bench.run(0.3)
    bench.moving()
    xs = [before.x, *(c.pose.position.x for c in bench.commands)]
    assert np.abs(np.diff(xs)).max() <= 0.65 * 0.05 + 1e-9
    graph.stop(bench.process)


BAD = {
    "not finite": lambda b: b.plan([[float("nan"), 0.0]] * 4),
    "an action that is not finite": lambda b: b.plan([[float("inf"), 0.0]] * 4),
    "the task expects (n, 2)": lambda b: b.plan([[0.01, 0.0, 0.0]] * 4),
    "too late": lambda b: b.plan([STEP] * 4, start=b.clock() - 10**9),
    "in the future": lambda b: b.plan([STEP] * 4, start=b.clock() + 10**10),
}


@pytest.mark.parametrize("words", BAD)
def test_a_chunk_that_must_not_be_executed(graph: Graph, words: str) -> None:
    bench = Bench(graph)
    bench.moving()
    bench.planning = False
    bench.held("has run out")
    heard, start = len(bench.diagnostics), len(bench.executed)
    bench.chunks.publish(BAD[words](bench))
    bench.told(words, heard)
    assert all(tick.hold for tick in bench.executed[start:])
    bench.moving()
    graph.stop(bench.process)


def test_chunks_beyond_the_limits_repeated_and_out_of_order(graph: Graph) -> None:
    bench = Bench(graph)
    status = graph.record(GatewayStatus, "/rl100/gateway_status", latched_qos())
    bench.moving()
    bench.planning = False
    bench.run(0.5)
    start = len(bench.executed)
    bench.chunks.publish(bench.plan([[50.0, -50.0]] * 4))
    bench.until(lambda: any(t.limited for t in bench.executed[start:]), "a limited action")
    tick = next(t for t in bench.executed[start:] if t.limited)
    assert "step size" in tick.reason and list(tick.raw_action) == [50.0, -50.0]
    assert tick.planned_target[0] > tick.target[0] - 1e-9
    bench.run(0.5)
    older, again = bench.plan([STEP] * 4), bench.plan([STEP] * 20)
    before = status[-1].dropped_chunks
    start = len(bench.executed)
    for message in (again, again, older):
        bench.chunks.publish(message)
    bench.until(lambda: status[-1].dropped_chunks == before + 2, "two refusals")
    bench.until(lambda: any(not t.hold for t in bench.executed[start:]), "motion by the plan")
    bench.run(0.3)
    moved = [t for t in bench.executed[start:] if not t.hold]
    assert {t.chunk_sequence for t in moved} == {again.sequence}
    assert len({t.chunk_index for t in moved}) == len(moved) > 3, "an action came twice"
    xs = [(c.pose.position.x, c.pose.position.y) for c in bench.commands]
    assert np.abs(np.diff(xs, axis=0)).max() <= 0.65 * 0.05 + 1e-9
    assert np.abs(xs).max() <= 0.28
    graph.stop(bench.process)


def policy_process(graph: Graph, sequence: int, step: float, version: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("fake_policy.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(sequence), str(step), version],
        env={**os.environ, "ROS_DOMAIN_ID": str(graph.domain)},
        text=True,
    )
    graph.processes.append(process)
    return process


def test_two_policies_and_one_that_is_killed_and_restarted(graph: Graph) -> None:
    bench = Bench(graph)

    def by(version: str) -> Callable[[], bool]:
        start = len(bench.executed)
        return lambda: sum(t.policy_version == version for t in bench.executed[start:]) > 2

    first = policy_process(graph, 1000, 0.001, "first")
    bench.until(by("first"), "the first policy")
    second = policy_process(graph, 1, -0.001, "second")
    bench.held("two policies publish on /rl100/action_chunk")
    ticks = bench.run(1.0)
    assert all(tick.hold for tick in ticks), "it moved while two policies pulled"
    first.kill()
    bench.until(by("second"), "the second policy alone")
    second.kill()
    bench.held("has run out")
    third = policy_process(graph, 1, 0.001, "third")
    bench.until(by("third"), "the restarted policy")
    third.terminate()
    graph.stop(bench.process)


def test_two_policies_that_see_the_same_frames(graph: Graph) -> None:
    bench = Bench(graph)
    bench.moving()
    rival: list[ActionChunk] = []
    publish = bench.chunks.publish

    def both(mine: ActionChunk) -> None:
        publish(mine)
        theirs = bench.plan([[-0.002, 0.0]] * 6, sequence=mine.sequence)
        theirs.header.stamp, theirs.policy_version = mine.header.stamp, "v2"
        publish(theirs)
        rival.append(theirs)

    bench.chunks.publish = both  # type: ignore[method-assign]
    bench.held("two policies publish on /rl100/action_chunk")
    assert all(tick.hold for tick in bench.run(1.0)), "it moved while two policies pulled"
    assert rival
    bench.chunks.publish = publish  # type: ignore[method-assign]
    bench.moving()
    graph.stop(bench.process)


def test_one_wrong_measurement_moves_nothing(graph: Graph) -> None:
    bench = Bench(graph)
    bench.moving()
    bench.planning = False
    bench.held("has run out")
    start, resting = len(bench.commands), bench.commands[-1].pose.position
    wrong = PoseStamped()
    wrong.header.stamp.sec, wrong.header.stamp.nanosec = split_ns(bench.clock())
    wrong.pose.position.x, wrong.pose.position.y = -0.25, 0.25
    heard = len(bench.diagnostics)
    bench.feedback.publish(wrong)
    bench.run(0.5)
    bench.told("the robot's feedback leapt by", heard)
    xs = np.array([(c.pose.position.x, c.pose.position.y) for c in bench.commands[start:]])
    assert len(xs) and np.abs(xs - [resting.x, resting.y]).max() < 1e-9
    bench.moving()
    graph.stop(bench.process)


def test_a_second_gateway_silences_both_until_one_is_left(graph: Graph) -> None:
    bench = Bench(graph)
    bench.moving()
    other = graph.start("rl100_control.main", mode="policy", arming=False)
    bench.held("a second 'rl100_gateway' publishes commands on /tool_target")
    bench.run(1.0)  # each of them looks around twice a second
    start = len(bench.commands)
    bench.run(1.0)
    assert len(bench.commands) == start, "commands while two gateways were there"
    graph.stop(other)
    bench.moving()
    graph.stop(bench.process)


def test_another_publisher_of_commands_is_told_and_nothing_is_sent(graph: Graph) -> None:
    bench = Bench(graph)
    bench.moving()
    other = graph.node.create_publisher(PoseStamped, "/tool_target", 1)
    bench.held("'test' publishes commands on /tool_target too")
    start = len(bench.commands)
    bench.run(0.5)
    assert len(bench.commands) == start
    graph.node.destroy_publisher(other)
    bench.until(
        lambda: any(s.message == "running" for a in bench.diagnostics[-2:] for s in a.status),
        "the end of the warning",
    )
    graph.stop(bench.process)


def test_a_stop_an_arming_and_the_report_at_the_end(graph: Graph) -> None:
    bench = Bench(graph, arming=True)
    rewards = graph.publisher(RewardEvent, "/rl100/reward")
    bench.planning = True
    bench.held("not armed")
    assert graph.call(Trigger, "/rl100_gateway/arm").success
    bench.moving()
    rewards.publish(RewardEvent(kind=RewardEvent.STOP, labeller="keyboard"))
    bench.until(lambda: bench.executed[-1].mode == ExecutedAction.MODE_STOPPED, "the stop")
    stopped = next(i for i, t in enumerate(bench.executed) if t.mode == t.MODE_STOPPED)
    ticks = bench.run(0.5)
    assert ticks and all(t.hold for t in bench.executed[stopped:])
    assert not graph.call(Trigger, "/rl100_gateway/arm").success
    answer = graph.call(
        SetMode, "/rl100_gateway/set_mode", mode=ExecutedAction.MODE_POLICY, clear_stop=True
    )
    assert answer.accepted
    bench.held("not armed")
    assert graph.call(Trigger, "/rl100_gateway/arm").success
    bench.moving()
    output = graph.stop(bench.process)
    assert "run report:" in output and "ticks/s" in output
    assert "held: 'keyboard' pressed stop" in output and "missed ticks" in output


def test_shadow_is_recorded_and_told_but_moves_nothing(graph: Graph) -> None:
    bench = Bench(graph, mode="shadow", arming=True)
    status = graph.record(GatewayStatus, "/rl100/gateway_status", latched_qos())
    bench.planning = True
    bench.until(lambda: bool(bench.executed) and bool(bench.executed[-1].shadow_target), "a shadow")
    ticks = [t for t in bench.run(1.0) if t.shadow_target]
    assert ticks and all(t.hold and t.sent and not t.raw_action for t in ticks)
    for tick in ticks:
        away = np.abs(np.array(tick.shadow_target) - np.array(tick.feedback)).max()
        assert tick.shadow_deviation == pytest.approx(away, abs=1e-6) and away > 0
    assert len({(c.pose.position.x, c.pose.position.y) for c in bench.commands}) == 1
    bench.until(lambda: status[-1].shadow_deviation_max > 0.002, "the deviation in the status")
    graph.stop(bench.process)


def test_the_process_of_the_dead_man_switch_dies(graph: Graph, tmp_path: Path) -> None:
    data = TASK.model_dump(mode="json", exclude_none=True)
    data["safety"]["deadman"] = "hold"
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(data))
    bench = Bench(graph, task=tmp_path / "task.yaml")
    switch = graph.publisher(Bool, "/rl100/deadman")
    held, step = [True], bench.step

    def step_with_switch() -> None:
        if held[0]:
            switch.publish(Bool(data=True))
        step()

    bench.step = step_with_switch  # type: ignore[method-assign]
    bench.moving()
    held[0] = False
    bench.held("the dead-man switch has been silent for more than 0.2 s")
    held[0] = True
    bench.moving()
    graph.stop(bench.process)


def test_when_the_gateway_is_killed_the_simulated_robot_holds_by_itself(graph: Graph) -> None:
    sim = graph.start("rl100_sim.sim_node")
    gateway = graph.start("rl100_control.main", mode="policy", arming=False)
    commands = graph.record(PoseStamped, "/tool_target")
    poses = graph.record(PoseStamped, "/tool_pose")
    policy_process(graph, 1, 0.012, "first")
    graph.wait(lambda: len(commands) > 5 and commands[-1] != commands[-4], "commands")
    start = commands[-1].pose.position.x
    graph.wait(lambda: abs(commands[-1].pose.position.x - start) > 0.01, "motion")
    gateway.send_signal(signal.SIGKILL)
    graph.spin(0.2)
    silent = len(commands)
    graph.spin(1.5)
    assert len(commands) == silent
    xs = [pose.pose.position.x for pose in poses[-30:]]
    # Its measurement is noisy; the policy asked for 12 mm each tick.
    assert max(xs) - min(xs) < 2e-3, "the robot went on without commands"
    graph.stop(sim)
