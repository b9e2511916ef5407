"""Record demonstrations.

Arguments: ``ros2 launch rl100 record.launch.py --show-args``
"""

from launch import LaunchDescription

from rl100.launch_actions import system_launch_description


def generate_launch_description() -> LaunchDescription:
    return system_launch_description("record")
