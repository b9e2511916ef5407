"""The table that is seen against the table that should be there.

Pins: offset, tilt and largest distance of a plane with known errors are found through noise and
clutter; a plane that is not there, or not seen, is a sentence and no figure.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from rl100_contracts.errors import ContractError
from rl100_perception.calibration.plane import plane_error

SIDE = 0.3
CORNERS = np.array([[x, y, 0.0] for x in (-SIDE, SIDE) for y in (-SIDE, SIDE)])
UP = np.array([0.0, 0.0, 1.0])
ORIGIN = np.zeros(3)


def table(rng: np.random.Generator, height: float, tilt_x: float, noise: float) -> np.ndarray:
    """Points on z = height + tan(tilt_x) y."""
    x, y = rng.uniform(-SIDE, SIDE, (2, 6000))
    z = height + np.tan(tilt_x) * y + rng.normal(0, noise, 6000)
    return np.stack([x, y, z], axis=1)


@settings(max_examples=30, deadline=None)
@given(
    height=st.floats(-0.02, 0.02),
    tilt=st.floats(-0.05, 0.05),
    seed=st.integers(0, 2**31),
    turn=st.floats(0, 3.0),
)
def test_a_known_error_is_found(height: float, tilt: float, seed: int, turn: float) -> None:
    rng = np.random.default_rng(seed)
    clutter = rng.uniform([-SIDE, -SIDE, -0.05], [SIDE, SIDE, 0.05], (2500, 3))
    points = np.concatenate([table(rng, height, tilt, 0.001), clutter])
    # The same anywhere: everything is turned and shifted together.
    rotation, shift = Rotation.from_rotvec([turn, 0.4, -turn]).as_matrix(), np.array([1.0, -2, 0.5])
    error = plane_error(
        points @ rotation.T + shift,
        CORNERS @ rotation.T + shift,
        shift,
        3.0 * rotation @ UP,  # of any length
        thickness_m=0.006,
    )
    assert error.offset_m == pytest.approx(height, abs=4e-4)
    assert error.tilt_rad == pytest.approx(abs(tilt), abs=2e-3)
    assert error.largest_m == pytest.approx(abs(height) + np.tan(abs(tilt)) * SIDE, abs=1e-3)
    assert 0.0009 < error.rms_m < 0.0016
    assert error.near == 8500 and 5900 < error.points < 6900


def test_an_edge_of_the_table_does_not_pull() -> None:
    rng = np.random.default_rng(0)
    points = table(rng, 0.0, 0.0, 0.001)
    box = rng.uniform([0.0, 0.0, 0.04], [0.2, 0.2, 0.041], (4000, 3))  # the top of a flat box
    error = plane_error(np.concatenate([points, box]), CORNERS, ORIGIN, UP, thickness_m=0.006)
    assert error.largest_m < 5e-4


def test_what_is_not_there_is_said() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ContractError, match="only 100 points are seen near the plane"):
        plane_error(table(rng, 0, 0, 0.001)[:100], CORNERS, ORIGIN, UP, thickness_m=0.006)
    cloud = rng.uniform([-SIDE, -SIDE, -0.05], [SIDE, SIDE, 0.05], (5000, 3))
    with pytest.raises(ContractError, match="no plane is seen: of 5000 points"):
        plane_error(cloud, CORNERS, ORIGIN, UP, thickness_m=0.006)
