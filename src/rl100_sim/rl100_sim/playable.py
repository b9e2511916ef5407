"""Whether the simulated arm can play a task, to be told before anything starts. No MuJoCo here."""

from __future__ import annotations

from rl100_contracts.errors import ContractError
from rl100_contracts.streams import Role
from rl100_contracts.task import Task
from rl100_sim.robot import JOINT_NAMES, TIMESTEP_S

COMMAND_TYPE = "geometry_msgs/msg/PoseStamped"
JOINTS, TOOL = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"


def proprioceptive_stream(task: Task, message_type: str) -> str:
    """Name of the task's proprioceptive stream of a message type.

    Raises:
        ContractError: the task has none.
    """
    for name, stream in task.streams.items():
        if stream.role is Role.PROPRIOCEPTION and stream.type == message_type:
            return name
    raise ContractError(
        f"task '{task.name}': the simulated robot needs a stream of type {message_type} "
        "with role proprioception"
    )


def check_world(task: Task, timestep_s: float = TIMESTEP_S) -> None:
    """Check what the world needs of a task, with physics in steps of ``timestep_s``.

    Raises:
        ContractError: other joints, a control rate that the physics cannot keep, or a camera that
            is not a depth image from a place that stands still.
    """
    if tuple(task.joint_names) != JOINT_NAMES:
        raise ContractError(
            f"task '{task.name}': joint_names must be {', '.join(JOINT_NAMES)} for the "
            "simulated arm; mend the task file or choose the task 'push'"
        )
    rate_hz = task.control.rate_hz
    substeps = round(1.0 / (rate_hz * timestep_s))
    if substeps < 1 or abs(substeps * timestep_s * rate_hz - 1.0) > 1e-6:
        raise ContractError(
            f"task '{task.name}': control.rate_hz {rate_hz:g} must divide the "
            f"simulator's physics rate, {1.0 / timestep_s:g} Hz"
        )
    for name, camera in task.cameras.items():
        if camera.depth is None or camera.mount != "fixed":
            raise ContractError(
                f"task '{task.name}': camera '{name}' cannot be simulated: give it a depth stream "
                "and mount: fixed"
            )


def check_playable(task: Task) -> None:
    """Check that the simulator's node can play a task.

    Raises:
        ContractError: it cannot; one sentence that names the key.
    """
    if task.action.command_type != COMMAND_TYPE:
        raise ContractError(
            f"task '{task.name}': action.command_type is {task.action.command_type}; the "
            f"simulated robot follows {COMMAND_TYPE}"
        )
    check_world(task)
    for kind in (JOINTS, TOOL):
        proprioceptive_stream(task, kind)


def check_scripted(task: Task) -> float:
    """Largest step (m) of a task that the scripted teleoperator can do.

    Raises:
        ContractError: the actions aren't steps of the tool in x and y.
    """
    action = task.action
    if action.space != "delta_tool_position" or action.names != ["x", "y"]:
        raise ContractError(
            f"task '{task.name}': the scripted teleoperator needs action.space "
            "delta_tool_position with names [x, y]; use another teleoperator for this task"
        )
    return float(min(*action.high, *(-low for low in action.low)))
