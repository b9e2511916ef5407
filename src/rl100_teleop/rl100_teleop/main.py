"""The teleoperation executables: light, so that Ctrl-C ends cleanly even while importing."""

from rl100_node import run_node


def keyboard() -> None:
    """Run the keyboard."""
    run_node("rl100_teleop.keyboard_node:TeleopKeyboardNode")


def joy() -> None:
    """Run the joystick."""
    run_node("rl100_teleop.joy_node:TeleopJoyNode")
