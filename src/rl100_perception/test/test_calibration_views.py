"""When a view is taken, and how views are kept.

Pins: a pose belongs to a picture only when the robot stood still around it, by stamps; each reason
against is one sentence; a folder of views gives back the very pictures and poses; images of each
encoding become the same grey.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rl100_contracts.calibration import Board, LensIntrinsics
from rl100_contracts.errors import ContractError
from rl100_perception.calibration.capture import NotStillError, PoseHistory, is_new
from rl100_perception.calibration.hand_eye import transform
from rl100_perception.calibration.views import (
    ViewsFile,
    ViewsFolder,
    grey_image,
    load_picture,
    load_views,
)

MS = 1_000_000
START = 1_000 * 1_000 * MS


def at(x: float, degrees: float = 0.0) -> np.ndarray:
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return transform(turn, np.array([x, 0.0, 0.0]))


def history(positions: list[float], period_ms: int = 50) -> PoseHistory:
    made = PoseHistory()
    for index, x in enumerate(positions):
        made.add(START + index * period_ms * MS, at(x))
    return made


def test_the_pose_of_a_still_robot_is_the_mean() -> None:
    poses = history([0.5, 0.5002, 0.5001] * 10)
    picture = START + 700 * MS
    assert poses.covers(picture) and not poses.covers(START + 1400 * MS)
    assert poses.at(picture)[0, 3] == pytest.approx(0.5001, abs=2e-5)


@pytest.mark.parametrize(
    ("made", "picture_ms", "words"),
    [
        (lambda: PoseHistory(), 0, "no pose of the robot"),
        (lambda: history([0.001 * i for i in range(30)]), 700, "moved while the view was taken"),
        (lambda: history([0.5] * 4, period_ms=250), 500, "must come at 10 Hz or more"),
        (lambda: history([0.5] * 30), 60_000, "58.5 s apart: synchronise the clocks"),
    ],
)
def test_each_reason_against_is_said(made: Any, picture_ms: int, words: str) -> None:
    with pytest.raises(NotStillError, match=words):
        made().at(START + picture_ms * MS)


def test_a_turn_on_the_spot_is_a_motion() -> None:
    poses = PoseHistory()
    for index in range(20):
        poses.add(START + index * 50 * MS, at(0.5, degrees=0.1 * index))
    with pytest.raises(NotStillError, match="moved"):
        poses.at(START + 700 * MS)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    poses = history([0.5] * 30)
    poses.add(START - 5_000 * MS, at(0.7))
    assert not poses.covers(START)


def test_only_new_poses_are_worth_a_view() -> None:
    taken = [at(0.5), at(0.6, 20.0)]
    assert not is_new(at(0.51, 2.0), taken)
    assert is_new(at(0.5, 6.0), taken)
    assert is_new(at(0.55), taken)


def header() -> ViewsFile:
    intrinsics = LensIntrinsics(width=8, height=6, fx=10.0, fy=10.0, cx=4.0, cy=3.0)
    return ViewsFile(
        camera="wrist",
        frame="wrist_optical",
        mount="tool",
        base_frame="base_link",
        tool_frame="tool0",
        board=Board(),
        intrinsics=intrinsics,
    )


def test_a_folder_gives_back_what_was_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6, 8), dtype=np.uint8) for _ in range(3)]
    poses = [
        transform(Rotation.random(random_state=i).as_matrix(), rng.uniform(-1, 1, 3))
        for i in range(3)
    ]
    folder = ViewsFolder(tmp_path / "views", header())
    for image, pose in zip(images, poses, strict=True):
        folder.add(image, pose)
    loaded = load_views(tmp_path / "views")
    assert [view.name for view in loaded.views] == ["view_00", "view_01", "view_02"]
    assert loaded.model_copy(update={"views": []}) == header()
    for view, image, pose in zip(loaded.views, images, poses, strict=True):
        np.testing.assert_array_equal(load_picture(tmp_path / "views", view), image)
        np.testing.assert_allclose(view.robot(), pose, atol=1e-12)
    with pytest.raises(ContractError, match=r"holds views already: add to them \(--add\)"):
        ViewsFolder(tmp_path / "views", header())
    more = ViewsFolder(tmp_path / "views", header(), add=True)
    for (view, found), image in zip(more.stored(), images, strict=True):
        np.testing.assert_array_equal(found, image, err_msg=view.name)
    assert more.add(images[0], poses[0]).name == "view_03"
    assert len(load_views(tmp_path / "views").views) == 4
    other = header().model_copy(update={"mount": "fixed"})
    with pytest.raises(ContractError, match="its views have another mount than there is now"):
        ViewsFolder(tmp_path / "views", other, add=True)
    (tmp_path / "views" / "view_01.png").write_bytes(b"no picture")
    with pytest.raises(ContractError, match=r"view_01\.png: is missing or no picture"):
        load_picture(tmp_path / "views", loaded.views[1])


def _message(encoding: str, pixels: np.ndarray, padding: int = 0) -> Any:
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return SimpleNamespace(
        encoding=encoding,
        height=pixels.shape[0],
        width=pixels.shape[1],
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def test_every_encoding_gives_the_same_grey() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    alpha = np.full((5, 7, 1), 255, np.uint8)
    luminance = rgb @ [0.299, 0.587, 0.114]
    for encoding, pixels in {
        "rgb8": rgb,
        "bgr8": rgb[:, :, ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[:, :, ::-1], alpha], axis=2),
    }.items():
        grey = grey_image(_message(encoding, pixels, padding=3))
        assert np.abs(grey - luminance).max() <= 1.0
    mono = rgb[:, :, 0]
    for encoding in ("mono8", "8UC1"):
        np.testing.assert_array_equal(grey_image(_message(encoding, mono, padding=2)), mono)
    png = cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes()
    compressed = SimpleNamespace(format="rgb8; png compressed bgr8", data=png)
    assert np.abs(grey_image(compressed) - luminance).max() <= 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "yuv422"}, "image encoding 'yuv422' is unknown"),
        ({"data": b"12"}, "has only 2 bytes"),
        ({"step": 3}, "bytes of data"),
    ],
)
def test_bad_images_are_one_sentence(changes: dict[str, Any], words: str) -> None:
    message = _message("mono8", np.zeros((5, 7), np.uint8))
    for key, value in changes.items():
        setattr(message, key, value)
    with pytest.raises(ContractError, match=words):
        grey_image(message)
