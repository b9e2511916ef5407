"""The scripted teleoperator: pushes the block to the goal from ground truth.

It goes round the block to the side away from the goal, pushes, steers by shifting its contact
sideways, and goes round again when the block slips off. Noise that is correlated in time can be
injected, so that demonstrations show recoveries and fail as often as a person's do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ExpertNoise:
    """AR(1) noise on actions: ``std`` as a part of the largest step, ``correlation`` per step."""

    std: float = 0.0
    correlation: float = 0.8

    @staticmethod
    def demonstration() -> ExpertNoise:
        """The default for demonstrations.

        About six in ten succeed, in wandering ways, and imitation of a hundred of them succeeds
        in about half of the episodes, which leaves reinforcement learning something to do. At 0.5
        nearly all succeed and so does imitation; at 1.0 there is too little left to imitate.
        """
        return ExpertNoise(std=0.8)


@dataclass(frozen=True)
class ExpertGains:
    """Distances (m) and gains of the teleoperator."""

    block_half: float = 0.035
    tool_radius: float = 0.014
    clearance: float = 0.016
    go_round: float = 0.085
    aligned: float = 0.018
    lost: float = 0.034
    steer: float = 1.0
    push_ahead: float = 0.03


class PushExpert:
    """Scripted teleoperator of the push task.

    Call :meth:`reset` at the start of each episode and :meth:`act` once per control step.
    """

    def __init__(
        self,
        max_step: float = 0.03,
        *,
        noise: ExpertNoise | None = None,
        gains: ExpertGains | None = None,
    ) -> None:
        self._max_step = max_step
        self._noise = noise or ExpertNoise()
        self._gains = gains or ExpertGains()
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; ``seed`` decides its noise."""
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 0xE84]))
        self._drift = self._noise.std * self._rng.standard_normal(2)
        self._pushing = False

    def act(
        self,
        *,
        tool_xy: FloatArray,
        target_xy: FloatArray,
        block_xy: FloatArray,
        block_yaw: float,
        goal_xy: FloatArray,
    ) -> FloatArray:
        """Action ``(2,)`` (m per step, each within ±max_step): the change of the tool target.

        ``target_xy`` is the last commanded tool target, which the tool follows with a lag.
        """
        desired = self._desired(tool_xy, block_xy, block_yaw, goal_xy)
        action = (desired - target_xy) / self._max_step
        largest = float(np.max(np.abs(action)))
        if largest > 1.0:
            action = action / largest
        noise = self._noise
        if noise.std > 0.0:
            rho = noise.correlation
            fresh = noise.std * math.sqrt(1.0 - rho * rho) * self._rng.standard_normal(2)
            self._drift = rho * self._drift + fresh
            action = action + self._drift
        return np.clip(action, -1.0, 1.0) * self._max_step

    def _desired(
        self, tool_xy: FloatArray, block_xy: FloatArray, block_yaw: float, goal_xy: FloatArray
    ) -> FloatArray:
        """Where the tool should be next (m)."""
        g = self._gains
        to_goal = goal_xy - block_xy
        along = to_goal / max(float(np.linalg.norm(to_goal)), 1e-6)
        across = np.array([-along[1], along[0]])
        angle = math.atan2(along[1], along[0]) - block_yaw
        # Half extent of the square block against the pushing direction.
        extent = g.block_half * (abs(math.cos(angle)) + abs(math.sin(angle)))
        contact = extent + g.tool_radius
        relative = tool_xy - block_xy
        ahead, aside = float(relative @ along), float(relative @ across)
        behind = ahead < -(g.block_half + g.tool_radius) * 0.8
        limit = g.lost if self._pushing else g.aligned
        self._pushing = behind and abs(aside) < limit
        if self._pushing:
            sideways = -g.steer * aside
            speed = g.push_ahead * max(0.3, 1.0 - abs(aside) / g.lost)
            # Meet the block's face, then stay a step ahead of the tool.
            return tool_xy + along * speed + across * sideways
        start = -(contact + g.clearance)
        if ahead < start + 0.01 and abs(aside) < 0.06:
            return block_xy + along * (start - 0.01)
        return self._round(relative, along, across, block_xy, start)

    def _round(
        self,
        relative: FloatArray,
        along: FloatArray,
        across: FloatArray,
        block_xy: FloatArray,
        start: float,
    ) -> FloatArray:
        """Next point on the way round the block to its far side, clear of its corners."""
        g = self._gains
        radius = max(g.go_round, -start)
        bearing = math.atan2(float(relative @ across), -float(relative @ along))
        distance = float(np.linalg.norm(relative))
        # Turn towards bearing 0 (behind the block) along the circle, moving out to it at once.
        turn = math.copysign(min(abs(bearing), 0.5), bearing)
        if distance < radius - 0.015:
            turn *= 0.3
        nxt = bearing - turn
        reach = radius if abs(bearing) > 0.3 else min(radius, max(-start, distance))
        return block_xy + reach * (-math.cos(nxt) * along + math.sin(nxt) * across)
