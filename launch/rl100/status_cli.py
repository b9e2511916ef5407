"""``rl100 status``: what runs and how well, on one screen."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rl100.client import Client
from rl100.gateway_cli import NAMES
from rl100_contracts.errors import ContractError
from rl100_control.tick import Mode

POLICY, GATEWAY = "/rl100/policy_status", "/rl100/gateway_status"
DIAGNOSTICS = "/diagnostics"
# Each node publishes its diagnostics once a second; longer only where one is there but silent.
PATIENCE_S = 5.0
# After so long without another node all are known; where policy or gateway were not found, only
# when each has announced itself again: DDS does that every three seconds.
CALM_S, ANNOUNCED_S = 1.0, 3.5

LEVELS = ("ok", "warning", "error", "stale")
SILENT = "silent"
COLOURS = dict(zip((*LEVELS, SILENT), ("green", "yellow", "bold red", "red", "red"), strict=True))


@dataclass
class Heard:
    """The newest messages: of the policy, of the gateway, and (level, sentence) of each node."""

    policy: Any = None
    gateway: Any = None
    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def on_policy(self, message: Any) -> None:
        self.policy = message

    def on_gateway(self, message: Any) -> None:
        self.gateway = message

    def on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.nodes[status.name] = LEVELS[min(status.level[0], 3)], status.message


def _expected(node: Any) -> set[tuple[str, str]]:
    """(topic, node) of everybody of ours who publishes what is shown, as far as is known."""
    return {
        (topic, end.node_name)
        for topic in (POLICY, GATEWAY, DIAGNOSTICS)
        for end in node.get_publishers_info_by_topic(topic)
        # The name of a node that was just found is still to come.
        if end.node_name.startswith("rl100_") or "UNKNOWN" in end.node_name
    }


def listen(client: Client) -> Heard:
    """What the running nodes say; those that say nothing within some seconds are ``silent``.

    Raises:
        ContractError: nothing runs.
    """
    from diagnostic_msgs.msg import DiagnosticArray

    from rl100_msgs.msg import GatewayStatus, PolicyStatus
    from rl100_node.qos import latched_qos

    heard, node = Heard(), client.node
    node.create_subscription(PolicyStatus, POLICY, heard.on_policy, latched_qos())
    node.create_subscription(GatewayStatus, GATEWAY, heard.on_gateway, latched_qos())
    node.create_subscription(DiagnosticArray, DIAGNOSTICS, heard.on_diagnostics, 10)
    begin = changed = time.monotonic()
    expected: set[tuple[str, str]] = set()
    missing: set[tuple[str, str]] = set()
    while (now := time.monotonic()) - begin < PATIENCE_S:
        if (found := _expected(node)) != expected:
            expected, changed = found, now
        there = {POLICY: heard.policy is not None, GATEWAY: heard.gateway is not None}
        missing = {(t, n) for t, n in expected if not there.get(t, n in heard.nodes)}
        known = all(there.values()) or now - begin > ANNOUNCED_S
        if expected and not missing and known and now - changed > CALM_S:
            break
        client.spin(0.1)
    for name in {name for _, name in missing if "UNKNOWN" not in name} - heard.nodes.keys():
        heard.nodes[name] = SILENT, f"no message within {PATIENCE_S:g} s: is it stuck?"
    if not heard.nodes and heard.policy is None and heard.gateway is None:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        raise ContractError(
            f"nothing runs on ROS_DOMAIN_ID {domain} (no node was found within {PATIENCE_S:g} s): "
            "start a system with rl100 up"
        )
    return heard


def _figure(value: float) -> float | None:
    """For JSON, which has no NaN and no infinity."""
    return round(float(value), 6) if math.isfinite(value) else None


def policy_values(status: Any) -> dict[str, Any]:
    """A PolicyStatus with its units in the names."""
    return {
        "version": status.policy_version,
        "previous": status.previous_version,
        "sampler": status.sampler,
        "provider": status.provider,
        "rate_hz": _figure(status.rate_hz),
        "inference_p50_ms": _figure(status.inference_p50_ms),
        "inference_p99_ms": _figure(status.inference_p99_ms),
        "decision_p50_ms": _figure(status.decision_p50_ms),
        "decision_p99_ms": _figure(status.decision_p99_ms),
        "decisions": status.inferences,
        "overruns": status.overruns,
        "missed_deadlines": status.missed_deadlines,
        "observation_age_s": _figure(status.observation_age_s),
        "message": status.message,
    }


def gateway_values(status: Any) -> dict[str, Any]:
    """A GatewayStatus with its units in the names; the deviation (m or rad) in shadow only."""
    values = {
        "mode": NAMES.get(status.mode, str(status.mode)),
        "armed": status.armed,
        "holding": status.holding,
        "reason": status.reason,
        "rate_hz": _figure(status.rate_hz),
        "ticks": status.ticks,
        "holds": status.holds,
        "limited": status.limited,
        "refused_chunks": status.dropped_chunks,
        "late_actions": status.late_actions,
        "missed_ticks": status.missed_ticks,
        "late_p50_ms": _figure(status.late_p50_ms),
        "late_p99_ms": _figure(status.late_p99_ms),
        "warning": status.warning,
    }
    if status.mode == Mode.SHADOW:
        values["shadow_deviation_mean"] = _figure(status.shadow_deviation_mean)
        values["shadow_deviation_max"] = _figure(status.shadow_deviation_max)
    return values


def _policy_rows(v: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("version", v["version"] or "none is loaded"),
        ("previous", v["previous"] or "none"),
        ("runs", f"{v['sampler']} on {v['provider'] or 'nothing yet'}, {v['rate_hz']} per second"),
        ("model ms", f"p50 {v['inference_p50_ms']}, p99 {v['inference_p99_ms']}"),
        ("decision ms", f"p50 {v['decision_p50_ms']}, p99 {v['decision_p99_ms']}"),
        (
            "decisions",
            f"{v['decisions']}, {v['overruns']} late, {v['missed_deadlines']} deadlines missed",
        ),
        ("observation age", f"{v['observation_age_s']} s"),
        ("message", v["message"]),
    ]


def _gateway_rows(v: dict[str, Any]) -> list[tuple[str, str]]:
    armed = ("armed" if v["armed"] else "not armed") if v["mode"] in ("policy", "takeover") else ""
    shadow = ""
    if "shadow_deviation_max" in v:
        shadow = f"{v['shadow_deviation_mean']} mean, {v['shadow_deviation_max']} largest"
    return [
        ("mode", ", ".join(word for word in (v["mode"], armed) if word)),
        ("now", f"holding: {v['reason']}" if v["holding"] else "running"),
        ("ticks", f"{v['ticks']}, {v['rate_hz']} per second, {v['missed_ticks']} missed"),
        ("late ms", f"p50 {v['late_p50_ms']}, p99 {v['late_p99_ms']}"),
        ("holds", f"{v['holds']}; {v['limited']} actions limited, {v['late_actions']} late"),
        ("refused chunks", f"{v['refused_chunks']}"),
        ("deviation", shadow),
        ("warning", v["warning"]),
    ]


def _print(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        if value:
            table.add_row(key, escape(value))
    console.print(table)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Three places are enough for people."""
    return {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}


def show(heard: Heard) -> None:
    """Print what was heard."""
    console = Console(highlight=False)
    if heard.policy is not None:
        _print(console, "policy", _policy_rows(_rounded(policy_values(heard.policy))))
    if heard.gateway is not None:
        _print(console, "gateway", _gateway_rows(_rounded(gateway_values(heard.gateway))))
    table = Table(title="nodes", title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, (level, message) in sorted(heard.nodes.items()):
        table.add_row(f"[{COLOURS[level]}]{level}[/]", escape(name), escape(message))
    console.print(table)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what runs, and how well: policy, gateway, and what each node says of itself."""
    with Client("a system") as client:
        heard = listen(client)
    if not as_json:
        show(heard)
        return
    nodes = [
        {"name": name, "level": level, "message": message}
        for name, (level, message) in sorted(heard.nodes.items())
    ]
    policy = None if heard.policy is None else policy_values(heard.policy)
    gateway = None if heard.gateway is None else gateway_values(heard.gateway)
    print(json.dumps({"policy": policy, "gateway": gateway, "nodes": nodes}, indent=2))
