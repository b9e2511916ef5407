"""The part of the task contract that says what the arm is, so that targets can be checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rl100_contracts.fields import Name, Vector3
from rl100_contracts.loading import StrictModel


class Robot(StrictModel):
    """The arm's kinematics: with it the gateway checks every target before it is sent.

    The URDF has ``base_frame``, ``tool_frame`` and ``joint_names`` of the task. Paths are absolute,
    relative to the task file, or ``package://PACKAGE/PATH``.
    """

    urdf: str = Field(min_length=1)
    srdf: str | None = Field(None, description="disables collisions of pairs that may touch")
    joint_states: Name = Field("joint_states", description="stream that measures the joints")
    collision_margin: Annotated[float, Field(ge=0)] = Field(
        0.005, description="links closer than this count as colliding, m"
    )
    workspace_low: Vector3 | None = Field(None, description="box of the tool, base frame, m")
    workspace_high: Vector3 | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Robot:
        low, high = self.workspace_low, self.workspace_high
        if (low is None) != (high is None):
            raise ValueError("give both of workspace_low and workspace_high, or none")
        if low and high and any(a >= b for a, b in zip(low, high, strict=True)):
            raise ValueError("each workspace_low must be below its workspace_high")
        return self
