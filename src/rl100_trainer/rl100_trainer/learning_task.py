"""What a learner needs to know of a task; a robot's task has its contract behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import yaml

from rl100_contracts.task import Task
from rl100_trainer.spec import PolicySpec


@dataclass(frozen=True)
class LearningTask:
    """Shapes and rules of a task.

    Attributes:
        name: for logs and results.
        spec: shapes of the policy.
        max_steps: control steps after which an episode times out.
        period_ns: control period.
        success_reward: of the step that solves it.
        contract: of the robot's task; None for a benchmark, whose policies aren't deployed and
            so get no bundle.
    """

    name: str
    spec: PolicySpec
    max_steps: int
    period_ns: int
    success_reward: float = 1.0
    contract: Task | None = None

    @staticmethod
    def of(task: Task | LearningTask) -> LearningTask:
        """The learner's view of a task contract; itself if it is one already."""
        if isinstance(task, LearningTask):
            return task
        return LearningTask(
            name=task.name,
            spec=PolicySpec.of_task(task),
            max_steps=task.episode.max_steps,
            period_ns=task.control.period_ns,
            success_reward=task.reward.success,
            contract=task,
        )

    def to_yaml(self) -> str:
        """The contract, or the shapes where there is none."""
        if self.contract is not None:
            return self.contract.to_yaml()
        values = {k: v for k, v in asdict(self).items() if k != "contract"}
        return yaml.safe_dump(_plain(values), sort_keys=False)


def _plain(value: object) -> object:
    """Tuples as lists, which YAML can hold without tags; without what is None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value
