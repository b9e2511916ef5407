"""Kinds of values that the contracts share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Topic = Annotated[str, Field(pattern=r"^/[A-Za-z][A-Za-z0-9_/]*[A-Za-z0-9_]$")]
MessageType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*$")]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Vector3 = Annotated[list[float], Field(min_length=3, max_length=3)]
Quaternion = Annotated[list[float], Field(min_length=4, max_length=4)]


def check_unit(quaternion_xyzw: list[float]) -> None:
    """Raise ValueError when a quaternion has not unit length."""
    if abs(sum(q * q for q in quaternion_xyzw) - 1.0) > 1e-3:
        raise ValueError("quaternion_xyzw must have unit length")
