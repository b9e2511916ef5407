"""What the gateway tells people: its status, its diagnostics and the report at the end of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.publisher import Publisher

from rl100_control.gateway import Gateway
from rl100_control.report import RunReport
from rl100_control.tick import Mode, Tick
from rl100_msgs.msg import GatewayStatus
from rl100_node.diagnostics import ERROR, OK, WARN, Diagnostics
from rl100_node.realtime import LoopFigures

PROBLEM_SHOWN_S = 2.0


class StatusReporter:
    """Publishes the gateway's state, at once when it begins or ends to hold.

    Args:
        node: the owner.
        gateway: what is reported on.
        publisher: of GatewayStatus.
        command_topic: nobody else may publish there.
        figures: how evenly the loop runs, or None in lockstep.
        kinematics: what is checked by kinematics.

    Attributes:
        holding: whether the last tick was a hold.
        report: what is counted.
        refused: real-time settings that the system refused, one sentence each.
    """

    def __init__(
        self,
        node: Node,
        gateway: Gateway,
        publisher: Publisher,
        command_topic: str,
        figures: Callable[[], LoopFigures | None],
        kinematics: str,
    ) -> None:
        self._node, self._gateway, self._publisher = node, gateway, publisher
        self._command_topic, self._figures, self._kinematics = command_topic, figures, kinematics
        self.diagnostics = Diagnostics(node)
        self.report = RunReport()
        self.refused: list[str] = []
        self.holding, self._reason = True, f"{gateway.no_feedback} yet"
        self._refusal, self._refused_until = "", 0.0
        self._rate_from, self._rate_hz = (time.monotonic(), 0), 0.0

    def note(self, problem: str) -> None:
        """Keep a refusal for the diagnostics; the timer reports it, so that a flood is thinned."""
        self._refusal, self._refused_until = problem, time.monotonic() + PROBLEM_SHOWN_S

    def _warning(self) -> str:
        return self._refusal if time.monotonic() < self._refused_until else ""

    def ticked(self, tick: Tick) -> None:
        """Count a tick; publish when it holds for another reason than the one before."""
        self.report.add(tick)
        if tick.hold != self.holding or (tick.hold and tick.reason != self._reason):
            self.holding, self._reason = tick.hold, tick.reason if tick.hold else ""
            self.publish()

    def _intruder(self) -> str:
        """Who else publishes commands, in one sentence; empty: nobody."""
        infos = self._node.get_publishers_info_by_topic(self._command_topic)
        names, own = [info.node_name for info in infos], self._node.get_name()
        if own in names:
            names.remove(own)
        if not names:
            return ""
        if names[0] == own:
            return (
                f"a second '{own}' publishes commands on {self._command_topic}: end one of them "
                "(one that was killed is forgotten after some 20 s)"
            )
        return f"'{names[0]}' publishes commands on {self._command_topic} too: end it"

    def _health(self) -> tuple[bytes, str]:
        gateway = self._gateway
        if gateway.intruder:
            return ERROR, gateway.intruder
        if gateway.mode is Mode.STOPPED:
            return WARN, f"stopped: {gateway.stop_reason}; an operator has to clear it"
        if gateway.mode is Mode.IDLE:
            return OK, "idle: set a mode to move the robot"
        warning = self._warning()
        shadow = gateway.mode is Mode.SHADOW  # where nobody moves the robot, all is well
        if self.holding and not (shadow and self._reason.startswith("no action")):
            # Why nothing is due, or known, is often that something was refused.
            missing = self._reason.startswith(("no action", gateway.no_feedback))
            refused = f"; {warning}" if warning and missing else ""
            return WARN, f"holding: {self._reason}{refused}"
        if warning or self.refused:
            return WARN, warning or self.refused[0]
        if shadow:
            return OK, "shadow: the policy moves nothing"
        return OK, "running"

    def on_timer(self) -> None:
        """Measure the rate, and tell."""
        now, (since, count) = time.monotonic(), self._rate_from
        self._rate_hz = (self._gateway.ticks - count) / max(now - since, 1e-6)
        self._rate_from = (now, self._gateway.ticks)
        self._gateway.intruder = self._intruder()
        self.tell()

    def tell(self) -> None:
        """Report the state and the figures."""
        figures = {
            "mode": self._gateway.mode.name.lower(),
            "armed": self._gateway.armed,
            **self.report.values(self._figures()),
            "limited actions": self._gateway.limited,
            "refused chunks": self._gateway.dropped_chunks,
            "late actions": self._gateway.dropped_actions,
            "restarts of the policy": self._gateway.arming.restarts,
            "checks by kinematics": self._kinematics,
        }
        self.diagnostics.report(*self._health(), figures)
        self.publish()

    def publish(self) -> None:
        """Publish the present status."""
        gateway, report, loop = self._gateway, self.report, self._figures()
        msg = GatewayStatus(
            mode=int(gateway.mode),
            holding=self.holding,
            reason=self._reason,
            ticks=gateway.ticks,
            holds=gateway.holds,
            limited=gateway.limited,
            dropped_chunks=gateway.dropped_chunks,
            rate_hz=self._rate_hz,
            armed=gateway.armed,
            warning=self._warning(),
            late_actions=gateway.dropped_actions,
            shadow_deviation=report.deviation,
            shadow_deviation_mean=report.mean_deviation,
            shadow_deviation_max=report.largest_deviation,
        )
        if loop is not None:
            msg.missed_ticks = loop.missed
            msg.late_p50_ms, msg.late_p99_ms = loop.late_p50_ms, loop.late_p99_ms
        msg.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(msg)
