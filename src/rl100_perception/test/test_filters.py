"""Filters of depth images and clouds, against plain loops over their definitions.

Pins: a pixel at a jump of depth goes, one beside a hole stays; the plane takes its clearance and
what is below; voxels give the mean of each cube, and of its colours; thinning is even and exact.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.observation_spec import Plane
from rl100_perception.filters import above_plane, remove_edges, thin, voxel_means


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_edges_are_removed_by_their_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.choice([0.0, 0.5, 0.51, 0.6, 0.9, np.nan], (9, 11)).astype(np.float32)
    got = remove_edges(depth, 0.05)
    for row in range(9):
        for column in range(11):
            own, jump = depth[row, column], False
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                r, c = row + down, column + right
                if 0 <= r < 9 and 0 <= c < 11 and own > 0 and depth[r, c] > 0:
                    jump |= bool(abs(own - depth[r, c]) > np.float32(0.05))
            expected = 0.0 if jump else own
            np.testing.assert_array_equal(got[row, column], np.float32(expected))


def test_a_step_loses_one_pixel_on_either_side() -> None:
    depth = np.full((4, 8), 0.5, dtype=np.float32)
    depth[:, 4:] = 0.8
    assert (remove_edges(depth, 0.1) == 0).sum(axis=1).tolist() == [2, 2, 2, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_the_plane_takes_what_is_below_its_clearance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal, point = rng.normal(size=3), rng.normal(size=3)
    plane = Plane(point=list(point), normal=list(3 * normal), clearance=0.02)
    points = rng.normal(size=(200, 3)).astype(np.float32)
    height = (points - point) @ (normal / np.linalg.norm(normal))
    clear = np.abs(height - 0.02) > 1e-5  # not so near that rounding decides
    np.testing.assert_array_equal(above_plane(points, plane)[clear], (height > 0.02)[clear])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**31))
def test_voxels_give_the_mean_of_each_cube(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.05, 0.05, (count, 3)).astype(np.float32)
    colours = rng.integers(0, 256, (count, 3), dtype=np.uint8)
    cubes: dict[tuple[int, ...], list[int]] = {}
    for index, point in enumerate(points.astype(np.float64)):
        cubes.setdefault(tuple(int(np.floor(v / 0.02)) for v in point), []).append(index)
    means = [points[cubes[key]].astype(np.float64).mean(axis=0) for key in sorted(cubes)]
    tints = [colours[cubes[key]].astype(np.float64).mean(axis=0) for key in sorted(cubes)]
    got, got_colours = voxel_means(points, 0.02, colours)
    np.testing.assert_allclose(got, means, atol=1e-6)
    assert got_colours is not None
    assert np.abs(got_colours - np.array(tints)).max() <= 0.5 + 1e-9


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_thinning_is_even(count: int, limit: int) -> None:
    places = thin(count, limit)
    assert len(places) == min(count, limit) and places[0] == 0 and places[-1] < count
    steps = np.diff(places)
    if len(steps):
        assert steps.min() >= 1 and steps.max() - steps.min() <= 1
