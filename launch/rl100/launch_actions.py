"""From the description of a system to launch actions. Needs ``launch`` and ``launch_ros``."""

from __future__ import annotations

import shlex

from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rl100.environment import common_environment, node_environment
from rl100.system_parts import NodeSpec, SystemArgument, suggestion
from rl100.systems import preflight, system_named
from rl100.up import RestartPolicy, StopTimes, command_line


def _declare(argument: SystemArgument) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        argument.name,
        # An empty value means "the node's default"; without a default launch asks for one.
        default_value=None if argument.needed else argument.default or "",
        description=argument.description,
        choices=list(argument.choices) or None,
    )


def node_action(spec: NodeSpec) -> LaunchDescriptionEntity:
    """The launch action of one node."""
    if spec.needs_terminal:
        words = command_line(spec, "")[1:]
        command = shlex.join(["ros2", "run", spec.package, spec.executable, *words])
        return LogInfo(msg=f"{spec.name} reads keys: start it in another terminal with\n{command}")
    restarts, stop_times = RestartPolicy(), StopTimes()
    return Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        # Typed, because launch reads text such as "1e3" as a number otherwise.
        arguments=list(spec.words),
        parameters=[{k: ParameterValue(v, value_type=type(v)) for k, v in spec.parameters.items()}],
        additional_env=node_environment(spec),
        output="both",
        respawn=spec.respawn,
        respawn_delay=restarts.first_s,
        respawn_max_retries=restarts.attempts,
        sigterm_timeout=str(stop_times.interrupt),
        sigkill_timeout=str(stop_times.terminate),
        on_exit=Shutdown(reason=f"node {spec.name} has ended") if spec.required else None,
    )


def _start(context: LaunchContext, system: str) -> list[LaunchDescriptionEntity]:
    known = [argument.name for argument in system_named(system).arguments]
    given = context.launch_configurations
    actions: list[LaunchDescriptionEntity] = [
        # Not refused: a launch file that includes this one may have arguments of its own.
        LogInfo(msg=f"system '{system}' has no argument '{key}'{suggestion(key, known)}")
        for key in given
        if key not in known and suggestion(key, known)
    ]
    actions += [SetEnvironmentVariable(k, v) for k, v in common_environment().items()]
    arguments = {key: given[key] for key in known if key in given}
    return [*actions, *(node_action(spec) for spec in preflight(system, arguments))]


def system_launch_description(system: str) -> LaunchDescription:
    """The launch description of a system, with one launch argument for each of its arguments."""
    declared = [_declare(argument) for argument in system_named(system).arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=_start, args=[system])])
