"""What a task needs of a system, as far as it can be told before the nodes start."""

from __future__ import annotations

from rl100_contracts.errors import ContractError


def check_simulated(name_or_path: str, *, scripted: bool = False) -> None:
    """Check that the simulator, with ``scripted`` its teleoperator too, can play a task.

    A task that cannot be read counts as one that it can: the nodes say what is wrong with it.

    Raises:
        ContractError: it cannot.
    """
    try:
        from rl100_contracts.task import load_task
        from rl100_sim.playable import check_playable, check_scripted
    except ImportError:  # as below
        return
    try:
        task = load_task(name_or_path)
    except ContractError:
        return
    check_playable(task)
    if scripted:
        check_scripted(task)


def observes_cloud(name_or_path: str) -> bool:
    """Whether the task observes a point cloud, so that perception is needed.

    A task that cannot be read counts as one that does: the nodes say what is wrong with it.
    """
    try:
        from rl100_contracts.task import load_task
    except ImportError:  # `ros2 launch` on the system's Python, without the nodes' packages
        return True
    try:
        return load_task(name_or_path).observation.cloud is not None
    except ContractError:
        return True
