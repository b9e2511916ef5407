"""The part of the task contract that says what an action means and where commands go."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from rl100_contracts.fields import Name, Quaternion, Topic, check_unit
from rl100_contracts.loading import StrictModel
from rl100_contracts.pose import POSITIONS, ROTATIONS, ToolCoordinates


class ActionSpace(StrictModel):
    """What an action means and where commands go.

    ``delta_*`` spaces add the action to the last commanded target; the others are the target.
    ``tool_pose`` spaces also turn the tool; ``rl100_contracts.pose`` says how rotations are given.
    """

    space: Literal[
        "tool_position",
        "delta_tool_position",
        "tool_pose",
        "delta_tool_pose",
        "joint_position",
        "delta_joint_position",
    ]
    names: list[str] = Field(
        min_length=1, description="axes (x, y, z), rotations (rx, ry, rz) or joint names"
    )
    low: list[float] = Field(description="smallest action, m or rad (per step for deltas)")
    high: list[float]
    command: Topic
    command_type: Literal[
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/TwistStamped",
        "std_msgs/msg/Float64MultiArray",
        "trajectory_msgs/msg/JointTrajectory",
    ]
    feedback: Name = Field(description="stream that measures the commanded coordinates")
    fixed_position: dict[str, float] = Field(
        default_factory=dict, description="Cartesian axes that are not commanded, m"
    )
    quaternion_xyzw: Quaternion | None = Field(
        None,
        description="orientation of the tool in the base frame: where rx, ry, rz are 0 (pose "
        "spaces), or the one that it keeps (position spaces; None: not commanded)",
    )

    @property
    def dim(self) -> int:
        """Number of values in one action (d)."""
        return len(self.names)

    @property
    def is_delta(self) -> bool:
        """Whether actions are added to the last target."""
        return self.space.startswith("delta_")

    @property
    def is_cartesian(self) -> bool:
        """Whether actions move the tool in the base frame (else joints)."""
        return self.space.endswith(("tool_position", "tool_pose"))

    @property
    def turns_tool(self) -> bool:
        """Whether actions turn the tool, too."""
        return self.space.endswith("tool_pose")

    @cached_property
    def coordinates(self) -> ToolCoordinates:
        """Cartesian spaces: poses to vectors in the order of ``names``, and back."""
        return ToolCoordinates(self.names, self.fixed_position, self.quaternion_xyzw)

    @model_validator(mode="after")
    def _shapes(self) -> ActionSpace:
        if not len(self.low) == len(self.high) == len(self.names):
            raise ValueError("names, low and high must have the same length")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("each low must be below its high")
        if len(set(self.names)) < len(self.names):
            raise ValueError("names has a name twice")
        if self.command_type.startswith("geometry_msgs/") and not self.is_cartesian:
            raise ValueError(f"command_type {self.command_type} is for Cartesian spaces")
        if self.command_type.endswith("/JointTrajectory") and self.is_cartesian:
            raise ValueError(f"command_type {self.command_type} is for spaces of joints")
        turns = set(self.names) & set(ROTATIONS)
        if self.turns_tool:
            if set(self.names) - {*POSITIONS, *ROTATIONS} or len(turns) not in (1, 3):
                # Two of three would not stay two: rotations about two axes make one about a third.
                raise ValueError(
                    f"names of {self.space} are of x, y, z and either all of rx, ry, rz or one"
                )
        elif self.is_cartesian and set(self.names) - set(POSITIONS):
            raise ValueError(f"names of {self.space} are of x, y, z")
        if self.quaternion_xyzw is not None:
            if not self.is_cartesian:
                raise ValueError("quaternion_xyzw is for Cartesian spaces")
            check_unit(self.quaternion_xyzw)
        return self

    def check_turns(self, low: list[float], high: list[float]) -> None:
        """Refuse position limits (of ``names``) where orientations have no unique coordinates."""
        turns = [i for i, name in enumerate(self.names) if name in ROTATIONS]
        step = max(abs(v) for v in (*self.low, *self.high)) if self.is_delta else 0.0
        farthest = math.hypot(*(max(abs(low[i]), abs(high[i])) for i in turns))
        if turns and farthest + step * math.sqrt(len(turns)) >= math.pi:
            raise ValueError(
                "limits: the corner of rx, ry, rz is "
                f"{farthest:.2f} rad from action.quaternion_xyzw; with one step it must stay below "
                "pi: narrow position_low and position_high, or choose another quaternion_xyzw"
            )
