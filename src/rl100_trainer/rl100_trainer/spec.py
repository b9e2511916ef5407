"""Shapes of a policy, taken from the task."""

from __future__ import annotations

from dataclasses import dataclass

from rl100_contracts.task import Task


@dataclass(frozen=True)
class PolicySpec:
    """What goes into a policy and what comes out.

    ``num_points`` 0: the policy sees no cloud. ``image_shape``: height and width of the colour
    image that it sees; None: it sees none. ``relative_to``: indices of the state that hold the
    tool's position, to which points and other positions are taken. ``tool_step``: m that one unit
    of the action's first values moves the tool, axis by axis; 0: they do something else.

    Where the state itself holds more positions (x, y, z, in m), critics see them relative to the
    tool and to each other: ``objects`` and ``goal`` are the indices of them; empty: unknown.
    """

    n_obs_steps: int
    state_dim: int
    num_points: int
    n_action_steps: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_is_delta: bool
    relative_to: tuple[int, ...] = ()
    tool_step: float = 0.0
    objects: tuple[tuple[int, int, int], ...] = ()
    goal: tuple[int, ...] = ()
    image_shape: tuple[int, int] | None = None

    @property
    def action_dim(self) -> int:
        """Values in one action (d)."""
        return len(self.action_low)

    @property
    def observation_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of ``states``, ``clouds`` and ``images`` of one observation.

        What isn't observed has no points or pixels, so that arrays of it are empty.
        """
        height, width = self.image_shape or (0, 0)
        return {
            "states": (self.n_obs_steps, self.state_dim),
            "clouds": (self.n_obs_steps, self.num_points, 3),
            "images": (self.n_obs_steps, height, width, 3),
        }

    @property
    def has_geometry(self) -> bool:
        """Whether the state holds positions that are worth comparing."""
        return bool(self.objects or self.goal)

    @property
    def point_dim(self) -> int:
        """Features of one point: xyz, and its coordinates relative to the tool."""
        return 3 + len(self.relative_to)

    @staticmethod
    def of_task(task: Task) -> PolicySpec:
        """The shapes that a task asks for."""
        observed = task.observation
        relative_to = tuple(observed.cloud.relative_to) if observed.cloud else ()
        action = task.action
        follows = action.space == "delta_tool_position" and len(relative_to) == action.dim
        return PolicySpec(
            n_obs_steps=task.control.n_obs_steps,
            state_dim=observed.state_dim,
            num_points=observed.num_points,
            n_action_steps=task.control.n_action_steps,
            action_low=tuple(task.action.low),
            action_high=tuple(task.action.high),
            action_is_delta=task.action.is_delta,
            relative_to=relative_to,
            tool_step=1.0 if follows else 0.0,
            image_shape=observed.image_shape,
        )
