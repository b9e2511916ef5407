"""Motion of one axis in equal steps of time within limits of velocity, acceleration and jerk.

A state is a position x, the velocity v of the step that led to it and the acceleration a of the
change before; a step chooses the next a, then v += a dt and x += v dt. Scalars, not arrays: an arm
has few axes, and plain floats are faster for those.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Halvings of the interval between braking and what is wanted, near a position limit.
HALVINGS = 8
# A velocity or acceleration that is smaller is rest.
REST = 1e-9
# Rounding that a simulated stop may add to a position.
ROUNDING = 1e-10


class AxisLimits(NamedTuple):
    """Limits of one axis: m or rad, and that per s, s^2, s^3."""

    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float


def braking_velocity(distance: float, acceleration: float, dt: float) -> float:
    """Largest velocity with which a stop within ``distance`` is possible in steps of ``dt``.

    With u = v / (a dt) and m = floor(u), a stop from v takes
    a dt^2 ((m + 1) u - m (m + 1) / 2), this step included; solved for u. One order higher it is
    the largest acceleration that can end within a change of velocity: give that and the jerk.
    """
    scaled = max(distance, 0.0) / (acceleration * dt * dt)
    m = math.floor((math.sqrt(1.0 + 8.0 * scaled) - 1.0) / 2.0)
    return acceleration * dt * (scaled + m * (m + 1.0) / 2.0) / (m + 1.0)


def approach_velocity(distance: float, limits: AxisLimits, dt: float) -> float:
    """Velocity with which to come near a goal at ``distance``, so that a stop there is possible."""
    if limits.jerk * dt >= 2.0 * limits.acceleration:
        return braking_velocity(distance, limits.acceleration, dt)
    # Half the acceleration leaves room for what the jerk limit delays; on the cube root the jerk
    # is constant and far below the limit; the last steps halve the distance.
    half = braking_velocity(distance, limits.acceleration / 2.0, dt)
    even = 0.55 * (distance * distance * limits.jerk) ** (1.0 / 3.0)
    return min(half, even, distance / (2.0 * dt))


def _towards(v: float, a: float, wanted: float, limits: AxisLimits, dt: float) -> float:
    """Next acceleration on the way to the velocity ``wanted``, without regard to position."""
    change = limits.jerk * dt
    gap = wanted - v
    most = min(braking_velocity(abs(gap), limits.jerk, dt), limits.acceleration)
    chosen = min(max(gap / dt, -most), most)
    # Never more than what can end before the velocity limit.
    chosen = min(chosen, braking_velocity(limits.velocity - v, limits.jerk, dt))
    chosen = max(chosen, -braking_velocity(limits.velocity + v, limits.jerk, dt))
    return min(max(chosen, a - change), a + change)


def stop_distance(v: float, a: float, limits: AxisLimits, dt: float) -> float:
    """An upper bound of how far the axis still moves in positive direction when it stops."""
    rising = max(a, 0.0)
    peak = v + rising * rising / (2.0 * limits.jerk) + rising * dt
    if peak <= 0.0:
        return 0.0
    if peak * limits.jerk > limits.acceleration**2:
        seconds = peak / limits.acceleration + limits.acceleration / limits.jerk
    else:
        seconds = 2.0 * math.sqrt(peak / limits.jerk)
    return peak * (seconds / 2.0 + rising / limits.jerk + 3.0 * dt)


def stops_inside(x: float, v: float, a: float, limits: AxisLimits, dt: float) -> bool:
    """Whether a stop from this state stays within the position limits."""
    low, high = limits.low - ROUNDING, limits.high + ROUNDING
    if not low <= x <= high:
        return False
    if (
        x + stop_distance(v, a, limits, dt) <= limits.high
        and x - stop_distance(-v, -a, limits, dt) >= limits.low
    ):
        return True
    while abs(v) > REST or abs(a) > REST:
        a = _towards(v, a, 0.0, limits, dt)
        v += a * dt
        x += v * dt
        if not low <= x <= high:
            return False
    return True


def next_acceleration(
    x: float, v: float, a: float, wanted: float, limits: AxisLimits, dt: float
) -> tuple[float, bool]:
    """The next acceleration on the way to the velocity ``wanted``, within all limits.

    From a state that can stop within the limits (as one at rest can) it leads to another, so
    nothing that is asked for leads out of them.

    Args:
        x: position, within its limits.
        v: velocity.
        a: acceleration.
        wanted: velocity, within its limit.
        limits: of the axis.
        dt: step, s.

    Returns:
        The acceleration, and whether it was reduced to stop before a position limit.
    """

    def safe(acceleration: float) -> bool:
        speed = v + acceleration * dt
        return stops_inside(x + speed * dt, speed, acceleration, limits, dt)

    chosen = _towards(v, a, wanted, limits, dt)
    if safe(chosen):
        return chosen, False
    # What a stop would do now is always possible: the state before was one that can stop.
    best = _towards(v, a, 0.0, limits, dt)
    for _ in range(HALVINGS):
        middle = 0.5 * (best + chosen)
        if safe(middle):
            best = middle
        else:
            chosen = middle
    return best, True
