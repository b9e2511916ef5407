"""Shapes of a policy, taken from the task."""

from __future__ import annotations

from dataclasses import dataclass

from rl100_contracts.task import Task


@dataclass(frozen=True)
class PolicySpec:
    """What goes into a policy and what comes out."""

    n_obs_steps: int
    state_dim: int
    num_points: int
    n_action_steps: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_is_delta: bool
    relative_to: tuple[int, ...] = ()

    @property
    def action_dim(self) -> int:
        """Values in one action (d)."""
        return len(self.action_low)

    @property
    def point_dim(self) -> int:
        """Features of one point: xyz, and its coordinates relative to the tool."""
        return 3 + len(self.relative_to)

    @staticmethod
    def of_task(task: Task) -> PolicySpec:
        """The shapes that a task asks for."""
        return PolicySpec(
            n_obs_steps=task.control.n_obs_steps,
            state_dim=task.observation.state_dim,
            num_points=task.observation.cloud.num_points,
            n_action_steps=task.control.n_action_steps,
            action_low=tuple(task.action.low),
            action_high=tuple(task.action.high),
            action_is_delta=task.action.is_delta,
            relative_to=tuple(task.observation.cloud.relative_to),
        )
