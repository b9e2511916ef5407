"""How a training stage tells others how far it is, and is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """State of one phase of a stage; see rl100_msgs/TrainProgress.

    ``total`` is 0 while it isn't known; ``loss`` and ``eta_s`` are NaN and -1 before a first value.
    """

    stage: str
    phase: str
    step: int
    total: int
    loss: float = float("nan")
    eta_s: float = -1.0


ProgressCallback = Callable[[Progress], None]
StopRequested = Callable[[], bool]


def ignore_progress(_: Progress) -> None:
    """A callback for those who don't look."""


def never_stop() -> bool:
    """The default of ``stop``."""
    return False
