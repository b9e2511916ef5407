"""Hand-eye calibration finds a camera whose pose is known, or says in one sentence why it can't.

Pins: rendered boards (blur, noise, distortion, a robot that measures with errors) give the camera
to 1 mm and 0.1 degrees, for both mounts, both boards and several rigs; bad views are found and
named; poor motions, a board of another size, the wrong mount and a board that slipped are refused.
The lenses are checked against the formulas of their models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rl100_contracts.calibration import Board, LensIntrinsics
from rl100_contracts.errors import ContractError
from rl100_perception.calibration.boards import BoardDetector, Corners, NoBoardError
from rl100_perception.calibration.hand_eye import (
    View,
    closed_form,
    difference,
    inverse,
    transform,
)
from rl100_perception.calibration.lens import Lens
from rl100_perception.calibration.rendering import BoardRenderer, Rig
from rl100_perception.calibration.solve import calibrate

FloatArray = NDArray[np.float64]

BOARDS = {
    "charuco": Board(),
    "apriltag_grid": Board(kind="apriltag_grid", columns=5, rows=4, square_m=0.045, marker_m=0.035),
}
BROWN = [0.12, -0.25, 0.001, -0.0015, 0.08]
FISHEYE = [0.03, -0.01, 0.004, -0.001]


def lens(model: str = "", coefficients: tuple[float, ...] | list[float] = ()) -> Lens:
    return Lens(
        LensIntrinsics(
            width=640,
            height=480,
            fx=605.0,
            fy=608.0,
            cx=324.5,
            cy=238.0,
            distortion_model=model,
            distortion=list(coefficients),
        )
    )


def rendered(rig: Rig, detector: BoardDetector, count: int, **motion: Any) -> list[View]:
    views = []
    for number in range(count):
        tool = rig.motion(**motion)
        corners = detector.find(rig.picture(tool))
        views.append(View(f"view_{number:02d}", rig.measured(tool), corners))
    return views


def synthetic(
    mount: str = "fixed",
    count: int = 12,
    seed: int = 0,
    tilt: tuple[float, float, float] = (0.6, 0.6, 0.6),
    pixel_noise: float = 0.1,
) -> tuple[list[View], FloatArray, FloatArray]:
    """Views without pictures: corners projected by the bare pinhole formula; X; Z."""
    rng = np.random.default_rng(seed)
    grid = np.stack([*np.meshgrid(np.arange(6), np.arange(4)), np.zeros((4, 6))], axis=-1)
    points = grid.reshape(-1, 3) * 0.036
    x = transform(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1, 3))
    z = transform(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.2, 0.2, 3))
    views = []
    for number in range(count):
        turn = Rotation.from_rotvec(rng.uniform(-1, 1, 3) * tilt).as_matrix()
        place = np.array([*rng.uniform(-0.04, 0.04, 2), rng.uniform(0.38, 0.5)])
        board = transform(turn, place - turn @ points.mean(axis=0))
        seen = points @ turn.T + board[:3, 3]
        pixels = seen[:, :2] / seen[:, 2:] * (605.0, 608.0) + (324.5, 238.0)
        arm = x @ board @ inverse(z)
        views.append(
            View(
                f"view_{number:02d}",
                arm if mount == "fixed" else inverse(arm),
                Corners(points, pixels + rng.normal(0, pixel_noise, pixels.shape)),
            )
        )
    return views, x, z


# --- accuracy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mount", "model", "coefficients", "seed"),
    [
        ("charuco", "fixed", "", [], 1),
        ("charuco", "fixed", "plumb_bob", BROWN, 3),
        ("charuco", "tool", "equidistant", FISHEYE, 4),
        ("apriltag_grid", "fixed", "plumb_bob", BROWN, 5),
        ("apriltag_grid", "tool", "", [], 6),
    ],
)
def test_rendered_boards_give_the_camera(
    kind: str, mount: str, model: str, coefficients: list[float], seed: int
) -> None:
    detector = BoardDetector(BOARDS[kind])
    rng = np.random.default_rng(seed)
    rig = Rig(
        detector,
        lens(model, coefficients),
        mount,
        rng,
        robot_noise_m=2e-4,
        robot_noise_rad=np.radians(0.02),
    )
    found = calibrate(rendered(rig, detector, 12), mount, lens(model, coefficients))
    apart, turned = difference(found.pose, rig.x)
    assert apart <= 1e-3
    assert np.degrees(turned) <= 0.1
    assert found.rejected == []
    assert found.residuals.reprojection_px < 1.0
    assert found.residuals.translation_mm < 1.0
    # The spread of the result is of the size of its error, not of another order.
    spread = found.residuals.spread_translation_mm
    assert spread is not None and spread < 1.0


@pytest.mark.parametrize("mount", ["fixed", "tool"])
@pytest.mark.parametrize("seed", range(4))
def test_synthetic_corners_give_the_camera(mount: str, seed: int) -> None:
    views, x, z = synthetic(mount, seed=seed)
    found = calibrate(views, mount, lens())
    apart, turned = difference(found.pose, x)
    assert apart <= 1e-3 and np.degrees(turned) <= 0.1
    assert difference(found.board, z)[0] <= 1e-3
    assert found.residuals.reprojection_px == pytest.approx(0.1 * np.sqrt(2), rel=0.25)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 12))
def test_the_closed_form_is_exact_without_noise(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)

    def some() -> FloatArray:
        return transform(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1, 3))

    x, z = some(), some()
    b = np.stack([some() for _ in range(count)])
    a = np.stack([x @ seen @ inverse(z) for seen in b])
    found = closed_form(a, b)
    np.testing.assert_allclose(found.x, x, atol=1e-6)
    np.testing.assert_allclose(found.z, z, atol=1e-6)


# --- bad views


def test_views_that_fit_no_others_are_left_out_and_named() -> None:
    views, x, _ = synthetic(count=14)
    slipped = transform(
        Rotation.from_euler("x", 4, degrees=True).as_matrix(), np.array([0.01, 0, 0])
    )
    for index in (3, 8):
        old = views[index]
        views[index] = View(old.name, old.robot @ slipped, old.corners)
    found = calibrate(views, "fixed", lens())
    assert found.rejected == ["view_03", "view_08"]
    assert len(found.used) == 12 and "view_03" not in found.used
    apart, turned = difference(found.pose, x)
    assert apart <= 1e-3 and np.degrees(turned) <= 0.1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"count": 5}, "5 views of the board are too few"),
        ({"tilt": (0.0, 0.0, 0.05)}, "hardly turned"),
        ({"tilt": (0.0, 0.0, 0.9)}, "about one axis only"),
        ({"tilt": (0.9, 0.02, 0.02)}, "about one axis only"),
    ],
)
def test_poor_motions_are_refused(made: dict[str, Any], words: str) -> None:
    views, _, _ = synthetic(**made)
    with pytest.raises(ContractError, match=words):
        calibrate(views, "fixed", lens())


@pytest.mark.parametrize("factor", [0.9, 1.03])
def test_a_board_of_another_size_is_found_out(factor: float) -> None:
    views, _, _ = synthetic(count=14)
    wrong = [
        View(v.name, v.robot, Corners(v.corners.points * factor, v.corners.pixels)) for v in views
    ]
    with pytest.raises(ContractError, match="times as large as was given") as caught:
        calibrate(wrong, "fixed", lens())
    assert f"{1 / factor:.2f}" in str(caught.value)


def test_the_wrong_mount_is_named() -> None:
    views, _, _ = synthetic("tool", count=14)
    with pytest.raises(ContractError, match="but fit '--mount tool'"):
        calibrate(views, "fixed", lens())


def test_poses_of_another_robot_are_a_contradiction() -> None:
    views, _, _ = synthetic(count=14)
    rng = np.random.default_rng(5)
    mixed = [views[i].robot for i in rng.permutation(len(views))]
    wrong = [View(v.name, pose, v.corners) for v, pose in zip(views, mixed, strict=True)]
    with pytest.raises(ContractError) as caught:
        calibrate(wrong, "fixed", lens())
    assert "\n" not in str(caught.value)


# --- boards and lenses


@pytest.mark.parametrize("kind", ["charuco", "apriltag_grid"])
def test_corners_are_found_to_a_fifth_of_a_pixel(kind: str) -> None:
    detector, rng = BoardDetector(BOARDS[kind]), np.random.default_rng(3)
    width, height = BOARDS[kind].size_m
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4]).as_matrix()
    pose = transform(turn, np.array([0.01, 0.0, 0.4]) - turn @ [width / 2, height / 2, 0])
    corners = detector.find(BoardRenderer(detector, lens()).take(pose, rng))
    seen = corners.points @ turn.T + pose[:3, 3]
    expected = seen[:, :2] / seen[:, 2:] * (605.0, 608.0) + (324.5, 238.0)
    error = np.linalg.norm(corners.pixels - expected, axis=1)
    assert np.sqrt(np.mean(error**2)) < 0.2
    assert np.abs((corners.pixels - expected).mean(axis=0)).max() < 0.1  # no half pixel


def test_a_picture_without_the_board_says_what_is_there() -> None:
    detector = BoardDetector(Board())
    blank = np.full((480, 640), 128, np.uint8)
    with pytest.raises(NoBoardError, match="no marker of DICT_5X5_100"):
        detector.find(blank)
    larger = BoardDetector(Board(columns=12, rows=9))
    other = np.pad(larger.draw(2000.0), 40, constant_values=255)
    with pytest.raises(NoBoardError, match="another board than the one that was given"):
        detector.find(other)
    part = np.pad(detector.draw(4000.0), 40, constant_values=255)[:, :250]
    with pytest.raises(NoBoardError, match="corners of the board were found"):
        detector.find(part)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dictionary": "DICT_9X9_1"}, "is not one of"),
        ({"columns": 20, "rows": 20, "dictionary": "DICT_4X4_50"}, "use a larger dictionary"),
    ],
)
def test_impossible_boards_are_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        BoardDetector(Board(**changes))


def _brown(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    k1, k2, p1, p2, k3 = BROWN
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def _fisheye(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    r = np.hypot(x, y)
    angle = np.arctan(r)
    k1, k2, k3, k4 = FISHEYE
    bent = angle * (1 + k1 * angle**2 + k2 * angle**4 + k3 * angle**6 + k4 * angle**8)
    return x * bent / r, y * bent / r


@pytest.mark.parametrize(
    ("model", "coefficients", "formula"),
    [
        ("", [], lambda x, y: (x, y)),
        ("plumb_bob", BROWN, _brown),
        ("equidistant", FISHEYE, _fisheye),
    ],
)
def test_lenses_follow_their_formulas(model: str, coefficients: list[float], formula: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.5, 0.5, 200), rng.uniform(-0.38, 0.38, 200)
    depth = rng.uniform(0.3, 2.0, 200)
    bent_x, bent_y = formula(x, y)
    expected = np.stack([605.0 * bent_x + 324.5, 608.0 * bent_y + 238.0], axis=1)
    made = lens(model, coefficients)
    points = np.stack([x * depth, y * depth, depth], axis=1)
    np.testing.assert_allclose(made.project(points), expected, atol=1e-6)
    np.testing.assert_allclose(made.directions(expected), np.stack([x, y], axis=1), atol=1e-6)


def test_unknown_lenses_are_refused() -> None:
    with pytest.raises(ContractError, match="distortion model 'kannala' of the camera info"):
        lens("kannala", [0.1])
    with pytest.raises(ContractError, match="has 4 or 5 coefficients, the camera info 3"):
        lens("plumb_bob", [0.1, 0.1, 0.1])
