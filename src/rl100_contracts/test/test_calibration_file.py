"""The file of a calibrated camera pose: strict, complete, and refused when it was changed by hand.

Pins: what is saved is loaded bit for bit; any changed value, and an edited hash, is refused with a
sentence that names the file; nothing is overwritten without being told to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.calibration import (
    Board,
    CameraCalibration,
    LensIntrinsics,
    Residuals,
    load_calibration,
    save_calibration,
    utc_now,
)
from rl100_contracts.errors import ContractError

HALF = math.sqrt(0.5)


def made(**changes: Any) -> CameraCalibration:
    values: dict[str, Any] = {
        "camera": "wrist",
        "frame": "wrist_optical",
        "mount": "tool",
        "parent_frame": "tool0",
        "position": [0.01, -0.02, 0.05],
        "quaternion_xyzw": [0.0, 0.0, HALF, HALF],
        "date": "2026-01-31T12:00:00Z",
        "method": "eye-in-hand, joint refinement",
        "board": Board(),
        "views": 14,
        "rejected": ["view_03"],
        "residuals": Residuals(translation_mm=0.4, rotation_deg=0.05, reprojection_px=0.2),
        "intrinsics": LensIntrinsics(width=640, height=480, fx=600.0, fy=600.5, cx=320, cy=240),
        **changes,
    }
    return CameraCalibration(**values)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "wrist.yaml"
    save_calibration(made(), path)
    loaded = load_calibration(path)
    assert loaded == made()
    assert loaded.hash == made().hash
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrist.yaml"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    position=st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    angle=st.floats(0, math.pi),
    spread=st.none() | st.floats(0, 100),
    name=st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()),
)
def test_every_value_survives(
    tmp_path: Path, position: list[float], angle: float, spread: float | None, name: str
) -> None:
    residuals = Residuals(
        translation_mm=0.1, rotation_deg=0.0, reprojection_px=1e-7, spread_translation_mm=spread
    )
    quaternion = [math.sin(angle / 2), 0.0, 0.0, math.cos(angle / 2)]
    calibration = made(
        position=position, quaternion_xyzw=quaternion, residuals=residuals, rejected=[name]
    )
    save_calibration(calibration, tmp_path / "any.yaml", overwrite=True)
    assert load_calibration(tmp_path / "any.yaml") == calibration


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["position"].__setitem__(2, 0.0500001),
        lambda d: d.update(camera="other"),
        lambda d: d.update(date="2026-02-01T12:00:00Z"),
        lambda d: d["residuals"].update(reprojection_px=0.1),
        lambda d: d["rejected"].append("view_04"),
        lambda d: d["board"].update(rows=6),
        lambda d: d["intrinsics"].update(fx=601.0),
        lambda d: d.update(hash="0" * 64),
    ],
)
def test_a_changed_file_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = tmp_path / "wrist.yaml"
    save_calibration(made(), path)
    _change(path, change)
    with pytest.raises(ContractError, match=r"wrist\.yaml: key 'hash' does not fit") as caught:
        load_calibration(path)
    assert "calibrate again" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("hash"), "key 'hash' is missing"),
        (lambda d: d.update(hash="abc"), "key 'hash'"),
        (lambda d: d.update(mount="ceiling"), "key 'mount'"),
        (lambda d: d.update(quaternion_xyzw=[0, 0, 0, 2]), "unit length"),
        (lambda d: d.update(position=[0.0, float("nan"), 0.0]), "key 'position[1]'"),
        (lambda d: d.update(position=[0.0, 0.0]), "key 'position'"),
        (lambda d: d.update(date="yesterday"), "must be in UTC like"),
        (lambda d: d.update(views=0), "key 'views'"),
        (lambda d: d.update(residual={}), "did you mean 'residuals'"),
        (
            lambda d: d["board"].update(marker_m=0.04),
            "the marker (marker_m) must be smaller than the square",
        ),
        (lambda d: d["board"].update(rows=2), "at least 3 columns and 3 rows"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = tmp_path / "wrist.yaml"
    save_calibration(made(), path)
    _change(path, change)
    with pytest.raises(ContractError) as caught:
        load_calibration(path)
    text = str(caught.value)
    assert str(path) in text and words in text and "\n" not in text


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "wrist.yaml"
    save_calibration(made(), path)
    with pytest.raises(ContractError, match="is there already"):
        save_calibration(made(views=3), path)
    assert load_calibration(path).views == 14
    save_calibration(made(views=3), path, overwrite=True)
    assert load_calibration(path).views == 3
    with pytest.raises(ContractError, match="is a folder"):
        save_calibration(made(), tmp_path, overwrite=True)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.yaml: no such file"):
        load_calibration(tmp_path / "none.yaml")


def test_the_matrix_maps_from_the_optical_frame_to_the_parent() -> None:
    # A quarter turn about z takes x to y; then the position is added.
    moved = made().matrix() @ np.array([1.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(moved, [0.01, 0.98, 0.05, 1.0], atol=1e-12)


def test_the_date_of_now_is_accepted() -> None:
    assert made(date=utc_now()).date.endswith("Z")


@pytest.mark.parametrize(("kind", "width"), [("charuco", 0.4), ("apriltag_grid", 0.38)])
def test_size_of_a_board(kind: Any, width: float) -> None:
    board = Board(kind=kind, columns=4, rows=3, square_m=0.1, marker_m=0.08)
    assert board.size_m[0] == pytest.approx(width)
