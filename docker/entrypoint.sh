#!/bin/bash
# Sources ROS and runs an rl100 command; `bash` and `ros2 ...` run in the same environment.
set -eo pipefail
source /opt/ros/jazzy/setup.bash
case "${1-}" in
    bash | ros2 | python) exec /workspace/rl100 env -- "$@" ;;
    *) exec /workspace/rl100 "$@" ;;
esac
