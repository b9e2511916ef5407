"""The executable ``reward_keyboard``: light, so that Ctrl-C ends cleanly even while importing."""

from rl100_node import run_node


def main() -> None:
    """Run the reward keyboard."""
    run_node("rl100_reward_keyboard.node:RewardKeyboardNode")
