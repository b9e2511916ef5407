"""The trainer node: a Train action around a training process, and the push of its bundle."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_msgs.action import Train
from rl100_msgs.msg import TrainProgress
from rl100_msgs.srv import LoadBundle
from rl100_node.diagnostics import ERROR, OK, Diagnostics
from rl100_node.executors import call_soon
from rl100_node.parameters import declare
from rl100_node.running import run_node
from rl100_trainer.child import Outcome, TrainingProcess, training_command
from rl100_trainer.config import config_of_run, load_config

STAGES = ("il", "offline", "online")
LOAD_SERVICE = "/rl100_policy/load_bundle"
PUSH_TIMEOUT_S = 120.0  # a large bundle is checked at the lowest priority
LOOK_PERIOD_S = 0.1


@dataclass
class _Run:
    """A training that is running: its goal, and what its process has reported."""

    handle: ServerGoalHandle
    progress: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    ended: Future = field(default_factory=Future)


class TrainerNode(Node):
    """Runs one training at a time in a child process; the node itself stays responsive."""

    def __init__(self) -> None:
        super().__init__("rl100_trainer")
        self._task = declare(self, "task", "push", "task of goals that name none")
        self._runs = Path(
            declare(self, "runs", "runs", "folder of the runs of goals that name no output")
        )
        load_task(self._task)
        self._diagnostics = Diagnostics(self)
        self._load_client = self.create_client(LoadBundle, LOAD_SERVICE)
        self.awaits = True
        self._busy = False
        self._child: TrainingProcess | None = None
        self._run: _Run | None = None
        # A group of their own, made once: nothing of theirs can keep the action server waiting.
        group = MutuallyExclusiveCallbackGroup()
        self._looking = self.create_timer(LOOK_PERIOD_S, self._look, callback_group=group)
        self._server = ActionServer(
            self,
            Train,
            "~/train",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )
        self._diagnostics.report(OK, "waiting for a goal")

    def shut_down(self) -> None:
        """End the training that is running; its checkpoint is kept."""
        if self._child is not None:
            self._child.stop_and_wait()

    # --- goals

    def _on_goal(self, goal: Train.Goal) -> GoalResponse:
        if self._busy:
            self.get_logger().warning("goal refused: a training is running already")
            return GoalResponse.REJECT
        if goal.stage not in STAGES:
            self.get_logger().warning(
                f"goal refused: stage '{goal.stage}' is unknown, use one of {', '.join(STAGES)}"
            )
            return GoalResponse.REJECT
        self._busy = True
        return GoalResponse.ACCEPT

    def _on_cancel(self, _: ServerGoalHandle) -> CancelResponse:
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Train.Result:
        goal, result = handle.request, Train.Result()
        try:
            result.message = await self._train(handle, goal, result)
            result.success = bool(result.bundle)
        except ContractError as error:
            result.message = str(error)
        finally:
            self._busy, self._child = False, None
        level = OK
        if result.success:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
            level = ERROR
        self._diagnostics.report(level, result.message)
        return result

    async def _train(self, handle: ServerGoalHandle, goal: Train.Goal, result: Train.Result) -> str:
        task = load_task(goal.task or self._task)
        if not goal.data:
            raise ContractError("the goal names no folder of episodes (field data)")
        if (goal.stage != "il") != bool(goal.previous):
            word = "takes no" if goal.previous else "needs a"
            raise ContractError(f"stage {goal.stage} {word} run to go on from (field previous)")
        if goal.previous:  # a mistake is told before a process starts
            config_of_run(Path(goal.previous), goal.overrides)
        else:
            load_config(None, goal.overrides)
        output = Path(goal.output) if goal.output else self._new_run(goal.stage, task)
        outcome = await self._run_child(handle, goal, task, output)
        if outcome.result is None:
            return outcome.message
        folder = Path(outcome.result["bundle"])
        verify_bundle(folder, task)
        result.bundle = str(folder)
        result.policy_version = str(outcome.result["policy_version"])
        skipped = len(outcome.result.get("skipped", []))
        note = f", {skipped} unusable episodes skipped" if skipped else ""
        if not goal.push:
            return f"trained {result.policy_version}{note}"
        result.pushed, said = await self._push(folder)
        return f"trained {result.policy_version}{note}; {said}"

    def _new_run(self, stage: str, task: Task) -> Path:
        now = datetime.datetime.now(datetime.timezone.utc)
        return self._runs / f"{task.name}-{stage}-{now:%Y%m%d-%H%M%S}"

    # --- the training process

    async def _run_child(
        self, handle: ServerGoalHandle, goal: Train.Goal, task: Task, output: Path
    ) -> Outcome:
        command = training_command(
            goal.stage, goal.task or self._task, goal.data, output, goal.overrides, goal.previous
        )
        run = self._run = _Run(handle)
        self._child = TrainingProcess(command, self._later(run.progress), self._later(run.outcomes))
        self._diagnostics.report(
            OK, f"training {task.name} ({goal.stage}) in {output}", {"pid": self._child.pid}
        )
        try:
            return await run.ended
        finally:
            self._run = None

    def _later(self, entries: list[Any]) -> Callable[[Any], None]:
        """Takes what the child's thread reports, for :meth:`_look` in the executor's thread."""

        def take(entry: Any) -> None:
            entries.append(entry)
            call_soon(self, self._look)

        return take

    def _look(self) -> None:
        # In the executor's thread: the only one that touches the action and the future.
        run = self._run
        if run is None:
            return
        if run.progress and run.handle.is_active:
            newest = run.progress[-1]
            run.progress.clear()
            run.handle.publish_feedback(Train.Feedback(progress=_message(newest)))
        if run.handle.is_cancel_requested and self._child is not None:
            self._child.stop()
        if run.outcomes and not run.ended.done():
            run.ended.set_result(run.outcomes[0])

    # --- the policy node

    async def _push(self, bundle: Path) -> tuple[bool, str]:
        """Hand the bundle to the policy node; returns whether it runs, and what was said."""
        if not self._load_client.service_is_ready():
            return False, f"not pushed: no policy node answers on {LOAD_SERVICE}"
        request = LoadBundle.Request(path=str(bundle.resolve()))
        waiting = self._load_client.call_async(request)
        timer = self.create_timer(PUSH_TIMEOUT_S, lambda: waiting.done() or waiting.cancel())
        try:
            response = await waiting
        finally:
            self.destroy_timer(timer)
        if response is None:
            return False, f"not pushed: {LOAD_SERVICE} did not answer within {PUSH_TIMEOUT_S:g} s"
        return bool(response.accepted), str(response.message)


def _message(entry: dict[str, Any]) -> TrainProgress:
    """A progress object of the child as a message."""
    loss = entry.get("loss")
    return TrainProgress(
        stage=str(entry["stage"]),
        phase=str(entry["phase"]),
        step=int(entry["step"]),
        total_steps=int(entry["total"]),
        loss=math.nan if loss is None else float(loss),
        eta_s=float(entry.get("eta_s", -1.0)),
    )


def main() -> NoReturn:
    """The console command ``trainer_node``."""
    run_node(TrainerNode)


if __name__ == "__main__":
    main()
