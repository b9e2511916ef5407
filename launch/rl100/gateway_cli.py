"""``rl100 arm``, ``rl100 stop`` and ``rl100 mode``: an operator's words to the running gateway."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rl100.client import Client
from rl100.system_parts import suggestion
from rl100_contracts.errors import ContractError
from rl100_control.tick import MODES, Mode

NAMES = {mode: name for name, mode in MODES.items()}


def _gateway() -> Client:
    return Client("the gateway")


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
    with _gateway() as client:
        answer = client.call(SetMode, "/rl100_gateway/set_mode", request)
    if not answer.accepted:
        mend = answer.message.replace("clear_stop: true", f"rl100 mode {name} --clear-stop")
        raise ContractError(f"the gateway refuses mode {name}: {mend}")
    typer.echo(f"mode {NAMES[answer.mode]}")


def arm() -> None:
    """Let the policy move the robot, until the next stop."""
    from std_srvs.srv import Trigger

    with _gateway() as client:
        answer = client.call(Trigger, "/rl100_gateway/arm", Trigger.Request())
    if not answer.success:
        raise ContractError(f"the gateway refuses to be armed: {answer.message}")
    typer.echo("armed: the policy moves the robot in mode policy, until the next stop")


def stop() -> None:
    """Stop the robot at once; only rl100 mode NAME --clear-stop lets it move again."""
    _set_mode("stopped", False)


def mode(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help=f"Who may move the robot: {', '.join(MODES)}; none: print the state.",
        ),
    ] = None,
    clear_stop: Annotated[
        bool, typer.Option("--clear-stop", help="The reason of a stop is gone.")
    ] = False,
) -> None:
    """Show the gateway's state, or change who may move the robot."""
    if name is not None:
        if name not in MODES:
            raise ContractError(
                f"mode '{name}' is unknown: choose one of {', '.join(MODES)}"
                + suggestion(name, MODES)
            )
        _set_mode(name, clear_stop)
        return
    from rl100_msgs.msg import GatewayStatus

    topic = "/rl100/gateway_status"
    with _gateway() as client:
        heard = client.latched(GatewayStatus, topic)
        client.wait(lambda: bool(heard), f"no message on {topic}")
        typer.echo(describe(heard[-1]))
