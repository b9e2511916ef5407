"""``rl100 arm``, ``rl100 stop`` and ``rl100 mode``: an operator's words to the running gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

import typer

from rl100_contracts.errors import ContractError
from rl100_control.tick import MODES, Mode

# Discovery on a loaded machine; a gateway that runs is found in a fraction of it.
PATIENCE_S = 10.0


class ModeName(str, Enum):
    """Modes of the gateway."""

    IDLE = "idle"
    TELEOP = "teleop"
    POLICY = "policy"
    TAKEOVER = "takeover"
    STOPPED = "stopped"
    SHADOW = "shadow"


NAMES = {mode: name for name, mode in MODES.items()}


class _Client:
    """A node that asks the gateway one thing. Use as a context manager."""

    def __enter__(self) -> _Client:
        from rl100.own_node import OwnNode

        self._own = OwnNode("rl100_operator")
        self.node = self._own.node
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def wait(self, done: Callable[[], bool], missing: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > end:
                raise ContractError(self._sentence(missing))
            self._own.spin_once(0.1)

    @staticmethod
    def _sentence(missing: str) -> str:
        return f"{missing} within {PATIENCE_S:g} s: is the gateway running, on this ROS_DOMAIN_ID?"

    def call(self, kind: Any, name: str, request: Any) -> Any:
        from rl100_node.discovery import wait_for_service

        client = self.node.create_client(kind, name)
        if not wait_for_service(self.node, client, self._own.spin_once, PATIENCE_S):
            raise ContractError(self._sentence(f"no service {name}"))
        future = client.call_async(request)
        self.wait(future.done, f"no answer from {name}")
        return future.result()

    def status(self) -> Any:
        from rl100_msgs.msg import GatewayStatus
        from rl100_node.qos import latched_qos

        heard: list[Any] = []
        self.node.create_subscription(
            GatewayStatus, "/rl100/gateway_status", heard.append, latched_qos()
        )
        self.wait(lambda: bool(heard), "no message on /rl100/gateway_status")
        return heard[-1]


def describe(status: Any) -> str:
    """One or two lines about a GatewayStatus."""
    words = [NAMES.get(status.mode, str(status.mode))]
    if status.mode == Mode.POLICY:
        words.append("armed" if status.armed else "not armed")
    if status.mode == Mode.SHADOW:
        words.append(
            f"deviation {status.shadow_deviation_mean:.4f} mean, "
            f"{status.shadow_deviation_max:.4f} largest"
        )
    if status.mode != Mode.IDLE:
        words.append(f"holding: {status.reason}" if status.holding else "running")
    text = ", ".join(words)
    return f"{text}\nwarning: {status.warning}" if status.warning else text


def _set_mode(name: str, clear_stop: bool) -> None:
    from rl100_msgs.srv import SetMode

    request = SetMode.Request(mode=MODES[name], clear_stop=clear_stop)
    with _Client() as client:
        answer = client.call(SetMode, "/rl100_gateway/set_mode", request)
    if not answer.accepted:
        mend = answer.message.replace("clear_stop: true", f"rl100 mode {name} --clear-stop")
        raise ContractError(f"the gateway refuses mode {name}: {mend}")
    typer.echo(f"mode {NAMES[answer.mode]}")


def arm() -> None:
    """Let the policy move the robot, until the next stop."""
    from std_srvs.srv import Trigger

    with _Client() as client:
        answer = client.call(Trigger, "/rl100_gateway/arm", Trigger.Request())
    if not answer.success:
        raise ContractError(f"the gateway refuses to be armed: {answer.message}")
    typer.echo("armed: the policy moves the robot in mode policy, until the next stop")


def stop() -> None:
    """Stop the robot at once; only rl100 mode NAME --clear-stop lets it move again."""
    _set_mode("stopped", False)


def mode(
    name: Annotated[
        ModeName | None, typer.Argument(help="Who may move the robot; none: print the state.")
    ] = None,
    clear_stop: Annotated[
        bool, typer.Option("--clear-stop", help="The reason of a stop is gone.")
    ] = False,
) -> None:
    """Show the gateway's state, or change who may move the robot."""
    if name is not None:
        _set_mode(name.value, clear_stop)
        return
    with _Client() as client:
        typer.echo(describe(client.status()))
