"""Teleoperation by a joystick or game pad (``sensor_msgs/Joy``, e.g. from ``joy_node``)."""

from __future__ import annotations

import time

from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rl100_contracts.errors import ContractError
from rl100_node.labelling import DISCARD, FAILURE, STOP, SUCCESS, Label
from rl100_node.parameters import declare
from rl100_node.qos import command_qos
from rl100_teleop.joystick import JoyPilot
from rl100_teleop.operator_node import OperatorNode

_VERDICTS = {
    "success": Label(SUCCESS, 1.0, "success"),
    "failure": Label(FAILURE, 0.0, "failure"),
    "discard": Label(DISCARD, 0.0, "discard"),
    "stop": Label(STOP, 0.0, "STOP"),
}


class TeleopJoyNode(OperatorNode):
    """Moves the robot while the dead-man button is held. Defaults fit an Xbox-like pad."""

    def __init__(self) -> None:
        super().__init__("rl100_teleop", "joy")
        dim = self.task.action.dim
        # Left stick: up is axis 1, left is axis 0; right stick: up is axis 4, left is axis 3.
        axes = self._numbers("axes", ",".join(str(i) for i in ([1, 0, 4, 3] * dim)[:dim]))
        signs = self._numbers("signs", ",".join(["1"] * dim))
        if len(axes) != dim:
            raise ContractError(
                f"parameter axes has {len(axes)} values, task '{self.task.name}' has {dim} actions"
            )
        deadman = declare(self, "deadman", 4, "button that must be held to move")
        deadzone = declare(self, "deadzone", 0.1, "ignored deflection", low=0.0, high=0.9)
        timeout_s = declare(self, "joy_timeout_s", 0.5, "silence that counts as a release, s")
        self._speed = declare(self, "speed", 0.6, "part of the largest speed", low=0.05, high=1.0)
        self._buttons: dict[int, str] = {}
        for name, index in (("start", 7), ("success", 0), ("failure", 1), ("discard", 2)):
            self._button(name, index)
        self._button("stop", 6)
        self._pilot = JoyPilot([int(a) for a in axes], signs, deadman, deadzone, timeout_s)
        self._deadman = self.create_publisher(Bool, "/rl100/deadman", command_qos())
        self.create_subscription(Joy, "/joy", self._on_joy, 10)

    def _numbers(self, name: str, default: str) -> list[float]:
        text = declare(self, name, default, "one number for each action, separated by commas")
        try:
            return [float(part) for part in text.split(",")]
        except ValueError:
            raise ContractError(
                f"parameter {name} is '{text}': give numbers separated by commas, e.g. '{default}'"
            ) from None

    def _button(self, name: str, default: int) -> None:
        index = declare(self, f"{name}_button", default, f"button for {name}; -1: none")
        if index >= 0:
            self._buttons[index] = name

    def _on_joy(self, message: Joy) -> None:
        try:
            pressed = self._pilot.receive(message.axes, message.buttons, time.monotonic())
        except ContractError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        for index in pressed:
            name = self._buttons.get(index, "")
            if name == "start":
                self.start_episode()
            elif name:
                self.publish_label(_VERDICTS[name])

    def on_tick(self) -> None:
        """Publish the dead-man button and the action of the sticks."""
        now = time.monotonic()
        self._deadman.publish(Bool(data=self._pilot.held(now)))
        self.drive(self._pilot.steer(now), self._speed)
