"""Declaring ROS parameters with descriptions, ranges and errors that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from rl100_contracts.cpus import parse_cpus
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_node.realtime import RealtimeSettings

ValueT = TypeVar("ValueT", bool, int, float, str)

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _descriptor(
    default: bool | int | float | str,
    description: str,
    low: float | None,
    high: float | None,
    choices: Sequence[str],
) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if choices:
        descriptor.additional_constraints = "one of " + ", ".join(choices)
    # A whole number such as 5 is a good value of a float, which ROS would refuse.
    descriptor.dynamic_typing = isinstance(default, float)
    if low is not None and high is not None:
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
    return descriptor


def declare(
    node: Node,
    name: str,
    default: ValueT,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> ValueT:
    """Declare a parameter that is read once at the start, and return its value.

    Args:
        node: where it is declared.
        name: of the parameter.
        default: its value when nothing is given; its type is the parameter's type.
        description: shown by ``ros2 param describe``; with the unit.
        low: smallest value (with ``high``).
        high: largest value (with ``low``).
        choices: allowed texts.

    Raises:
        ContractError: the given value has another type, is out of range or is no choice.
    """
    descriptor = _descriptor(default, description, low, high, choices)
    wanted = _KINDS[type(default)]
    try:
        value = node.declare_parameter(name, default, descriptor).value
    except InvalidParameterTypeException:
        raise ContractError(f"parameter {name} of {node.get_name()} must be {wanted}") from None
    except InvalidParameterValueException:
        raise ContractError(
            f"parameter {name} of {node.get_name()} must be {wanted} from {low} to {high}"
        ) from None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, type(default)):
        raise ContractError(f"parameter {name} of {node.get_name()} must be {wanted}")
    if choices and value not in choices:
        raise ContractError(
            f"parameter {name} of {node.get_name()} is '{value}': choose one of "
            f"{', '.join(choices)}"
        )
    if low is not None and high is not None and not low <= float(value) <= high:
        raise ContractError(
            f"parameter {name} of {node.get_name()} is {value}: it must be {wanted} from {low} "
            f"to {high}"
        )
    return value


def declare_task(node: Node) -> Task:
    """Declare the parameter ``task`` and load it; raises ContractError."""
    name = declare(node, "task", "push", "built-in task, or the path of a task file")
    return load_task(name)


def declare_lockstep(node: Node) -> bool:
    """Declare the parameter ``lockstep``."""
    return declare(
        node, "lockstep", False, "the simulated world waits for the command of each tick"
    )


def _declare_cpus(node: Node) -> tuple[int, ...]:
    """Declare ``cpu_affinity``: a CPU, a list of them, or a text such as "2-3" or "0,2"."""
    text = "CPUs that the control loop may run on: 2, [2, 3], '2-3' or '0,2'; empty: any"
    descriptor = ParameterDescriptor(description=text, read_only=True, dynamic_typing=True)
    value = node.declare_parameter("cpu_affinity", "", descriptor).value
    single = isinstance(value, str | int | float) or value is None
    try:
        return parse_cpus(str(value) if single else ",".join(map(str, value)))
    except ContractError as error:
        raise ContractError(
            f"parameter cpu_affinity of {node.get_name()} is '{value}': {error}"
        ) from None


def declare_realtime(node: Node) -> RealtimeSettings:
    """Declare ``thread_priority``, ``cpu_affinity``, ``lock_memory`` and ``freeze_gc``.

    Raises:
        ContractError: a value has another type, is out of range or names no CPU.
    """
    priority = "SCHED_FIFO priority of the control loop; 0: normal scheduling"
    return RealtimeSettings(
        thread_priority=declare(node, "thread_priority", 0, priority, low=0, high=99),
        cpu_affinity=_declare_cpus(node),
        lock_memory=declare(node, "lock_memory", False, "keep the process in memory (mlockall)"),
        freeze_gc=declare(node, "freeze_gc", False, "collect garbage between two ticks only"),
    )
