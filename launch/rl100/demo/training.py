"""Asks the trainer node for a training run and follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rclpy.action import ActionClient

from rl100.session import Session
from rl100_contracts.errors import ContractError
from rl100_msgs.action import Train
from rl100_msgs.msg import TrainProgress

OnProgress = Callable[[TrainProgress], None]


def train_through_ros(
    session: Session,
    data: Path,
    output: Path,
    overrides: Sequence[str],
    *,
    push: bool = True,
    timeout_s: float = 3600.0,
    on_progress: OnProgress = lambda _: None,
) -> Train.Result:
    """Train a policy with the running trainer node; returns the action's result.

    Raises:
        ContractError: the node refuses, the training fails, or the push fails.
    """
    client = ActionClient(session.node, Train, "/rl100_trainer/train")
    try:
        session.spin_until(client.server_is_ready, 30.0, "action /rl100_trainer/train")
        session.introduce(["/rl100_trainer/train/_action/status"])
        goal = Train.Goal(
            stage="il",
            task=session.task.name,
            data=[str(data)],
            output=str(output),
            overrides=list(overrides),
            push=push,
        )
        sending = client.send_goal_async(
            goal, feedback_callback=lambda msg: on_progress(msg.feedback.progress)
        )
        session.spin_until(sending.done, 30.0, "answer of the trainer")
        handle = sending.result()
        if handle is None or not handle.accepted:
            raise ContractError("the trainer refuses the goal: it is busy or the stage is unknown")
        waiting = handle.get_result_async()
        session.spin_until(waiting.done, timeout_s, "result of the training")
        result = waiting.result().result
    finally:
        client.destroy()
    if not result.success:
        raise ContractError(f"training failed: {result.message}")
    if push and not result.pushed:
        raise ContractError(f"the bundle could not be pushed: {result.message}")
    return result
