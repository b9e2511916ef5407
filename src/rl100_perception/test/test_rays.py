"""Rays of lenses with distortion.

Pins: for every known model a point in space that OpenCV projects to a pixel lies on that pixel's
ray; pixels where the model doesn't hold have no ray; unknown models and wrong numbers of
coefficients are refused in one sentence.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_perception.cloud import DISTORTION_MODELS, Pose, check_distortion, optical_rays

LENSES = {
    "plumb_bob": (0.12, -0.25, 0.001, -0.002, 0.08),
    "rational_polynomial": (0.4, -0.3, 0.001, -0.001, 0.02, 0.5, -0.2, 0.01),
    "equidistant": (0.05, -0.01, 0.004, -0.001),
}


def lens(model: str, *, focal: float = 300.0) -> Intrinsics:
    return Intrinsics(320, 240, focal, 0.98 * focal, 157.3, 121.9, model, LENSES[model])


@pytest.mark.parametrize("model", LENSES)
def test_a_point_lies_on_the_ray_of_the_pixel_that_sees_it(model: str) -> None:
    camera = lens(model)
    rays = optical_rays(camera)
    assert np.isfinite(rays).all() and (rays[2] == 1.0).all()
    rows = np.random.default_rng(0).uniform(0.3, 2.0, rays.shape[1])
    points = (rays * rows).T.reshape(-1, 1, 3)
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    project = cv2.fisheye.projectPoints if model == "equidistant" else None
    zero = np.zeros((3, 1))
    if project is not None:
        seen, _ = project(points, zero, zero, matrix, np.array(camera.distortion))
    else:
        seen, _ = cv2.projectPoints(points, zero, zero, matrix, np.array(camera.distortion))
    v, u = np.mgrid[0:240, 0:320]
    wanted = np.stack([u.ravel(), v.ravel()], axis=1)
    np.testing.assert_allclose(seen.reshape(-1, 2), wanted, atol=1e-3)


def test_a_pinhole_needs_no_iteration() -> None:
    rays = optical_rays(Intrinsics(320, 240, 300.0, 300.0, 160.0, 120.0))
    np.testing.assert_array_equal(rays[:, 0], [-160 / 300, -120 / 300, 1.0])


def test_where_the_model_does_not_hold_there_is_no_ray() -> None:
    # With such a short focal length this polynomial folds back long before the corners.
    pinhole = (320, 240, 100.0, 100.0, 160.0, 120.0)
    rays = optical_rays(Intrinsics(*pinhole, "plumb_bob", (-0.4, 0.0, 0.0, 0.0)))
    assert np.isnan(rays[0, 0]) and np.isfinite(rays[:, 120 * 320 + 160]).all()


@pytest.mark.parametrize(
    ("model", "count", "sentence"),
    [
        ("thin_prism", 4, "distortion model 'thin_prism' of the camera info is unknown: use plumb"),
        ("plumb_bob", 3, "'plumb_bob' has 4 or 5 coefficients, the camera info 3"),
        ("equidistant", 5, "'equidistant' has 4 coefficients, the camera info 5"),
    ],
)
def test_an_unknown_lens_is_one_sentence(model: str, count: int, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        check_distortion(Intrinsics(64, 48, 60.0, 60.0, 32.0, 24.0, model, (0.1,) * count))


def test_every_known_model_is_tested_here() -> None:
    assert set(LENSES) == set(DISTORTION_MODELS)


def test_poses_compose_and_invert() -> None:
    first = Pose.of([0.1, 0.2, 0.3], [0.5, 0.5, 0.5, 0.5])
    second = Pose.of([-0.4, 0.0, 0.2], [0.0, 0.6, 0.0, 0.8])
    points = np.random.default_rng(1).normal(size=(3, 20)).astype(np.float32)
    both = (first @ second).apply(points)
    np.testing.assert_allclose(both, first.apply(second.apply(points)), atol=1e-6)
    np.testing.assert_allclose(first.inverse().apply(first.apply(points)), points, atol=1e-6)
