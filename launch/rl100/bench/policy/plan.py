"""How much the benchmark ``policy`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rl100.bench.overrides import with_overrides


@dataclass(frozen=True)
class Plan:
    """Repetitions and durations; each can be set by ``--set key=value``, 0 leaves a part out.

    Attributes:
        rounds: of the comparisons between runtimes; each has one 10-step DDIM in eager PyTorch.
        full: 1: also the full U-Net; 0: only when its bundle is there already.
        latency_s: how long sensor-to-command and the node's overhead are measured, s.
        skipnet_s: length of the 100 Hz run, s.
        unet_s: length of the 30 Hz run, s.
        swaps: of bundles, under load.
        stops: of the robot.
        realtime: 1: nodes and benchmark ask for real-time priority, as ``realtime:=true`` does.
    """

    rounds: int = 100
    full: int = 1
    latency_s: float = 120.0
    skipnet_s: float = 600.0
    unet_s: float = 600.0
    swaps: int = 100
    stops: int = 2000
    realtime: int = 1


FULL = Plan()
QUICK = Plan(rounds=8, full=0, latency_s=5.0, skipnet_s=4.0, unet_s=3.0, swaps=5, stops=30)


def plan_of(quick: bool, overrides: Sequence[str] = ()) -> Plan:
    """The plan that was asked for.

    Raises:
        ContractError: an unknown key, or a value that is no number.
    """
    return with_overrides(QUICK if quick else FULL, "policy", overrides)
