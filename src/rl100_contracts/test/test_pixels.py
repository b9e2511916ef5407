"""Images of cameras to arrays, whatever their encoding.

Pins: every colour encoding, padded rows and compressed images give the same RGB pixels (PNG to the
bit, JPEG nearly); depth in both encodings, byte orders and with padded rows gives metres; camera
info gives K and its distortion, or P for rectified images; damaged messages are one sentence.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl100_contracts.decode import (
    Intrinsics,
    decode_camera_info,
    decode_cloud,
    decode_cloud_colours,
    decode_depth,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.pixels import decode_pixels

RNG = np.random.default_rng(3)


def message(rows: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Any:
    """An Image of an array (H, W, ...), with ``padding`` bytes after each row."""
    height, width = rows.shape[:2]
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(height, -1)
    data = np.pad(data, ((0, 0), (0, padding)), constant_values=255)
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=data.shape[1],
        is_bigendian=int(big),
        data=data.tobytes(),
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("rgb8", [0, 1, 2]),
        ("bgr8", [2, 1, 0]),
        ("rgba8", [0, 1, 2, 3]),
        ("bgra8", [2, 1, 0, 3]),
    ],
)
def test_every_encoding_gives_rgb(encoding: str, order: list[int], padding: int) -> None:
    pixels = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    got = decode_pixels(message(pixels[:, :, order], encoding, padding))
    np.testing.assert_array_equal(got, pixels[:, :, :3])


def test_grey_becomes_three_equal_channels() -> None:
    grey = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    got = decode_pixels(message(grey, "mono8", 3))
    assert got.shape == (6, 9, 3) and (got == grey[:, :, None]).all()


def test_compressed_images_are_decoded() -> None:
    y, x = np.mgrid[0:48, 0:64]
    rgb = np.stack([4 * x, 5 * y, 255 - 4 * x], axis=2).astype(np.uint8)
    png = SimpleNamespace(format="png", data=cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes())
    np.testing.assert_array_equal(decode_pixels(png), rgb)
    jpeg = SimpleNamespace(
        format="rgb8; jpeg compressed bgr8",
        data=cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(),
    )
    assert np.abs(decode_pixels(jpeg).astype(int) - rgb).mean() < 3


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("jpeg", b"", "cannot be decoded: use JPEG or PNG"),
        ("jpeg", b"no image", "cannot be decoded: use JPEG or PNG"),
        ("16UC1; compressedDepth", b"1234", "record the raw one"),
    ],
)
def test_compressed_rubbish_is_one_sentence(kind: str, data: bytes, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        decode_pixels(SimpleNamespace(format=kind, data=data))


@given(st.booleans(), st.sampled_from([0, 2, 7]), st.integers(0, 2**31))
def test_depth_in_millimetres_and_metres_agree(big: bool, padding: int, seed: int) -> None:
    order = ">" if big else "<"
    millimetres = np.random.default_rng(seed).integers(0, 2**16, (5, 7))
    whole = message(millimetres.astype(f"{order}u2"), "16UC1", padding, big)
    metres = message((millimetres * 1e-3).astype(f"{order}f4"), "32FC1", padding, big)
    got = decode_depth(whole, 0.001)
    assert got.dtype == np.float32 and got.shape == (5, 7)
    np.testing.assert_allclose(got, millimetres * 1e-3, rtol=1e-6)
    np.testing.assert_allclose(decode_depth(metres, 0.001), got, rtol=1e-6)


def info(**changed: Any) -> Any:
    values = {
        "width": 64,
        "height": 48,
        "k": [60.0, 0.0, 31.0, 0.0, 58.0, 24.5, 0.0, 0.0, 1.0],
        "p": [50.0, 0.0, 30.0, 0.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "d": [0.1, -0.2, 0.0, 0.0, 0.05],
        "distortion_model": "plumb_bob",
        **changed,
    }
    return SimpleNamespace(**values)


def test_camera_info_gives_k_and_distortion_or_p() -> None:
    lens = (0.1, -0.2, 0.0, 0.0, 0.05)
    assert decode_camera_info(info()) == Intrinsics(64, 48, 60, 58, 31, 24.5, "plumb_bob", lens)
    assert decode_camera_info(info(), rectified=True) == Intrinsics(64, 48, 50, 50, 30, 24)
    # Coefficients that are all 0 are a pinhole, so equal cameras compare equal.
    assert decode_camera_info(info(d=[0.0] * 5)) == Intrinsics(64, 48, 60, 58, 31, 24.5)


@pytest.mark.parametrize("focal", [0.0, -1.0, float("nan")])
def test_an_uncalibrated_camera_is_refused(focal: float) -> None:
    k = [focal, 0.0, 31.0, 0.0, 58.0, 24.5, 0.0, 0.0, 1.0]
    with pytest.raises(ContractError, match="not calibrated"):
        decode_camera_info(info(k=k))


def cloud(width: int, height: int, padding: int, **changed: Any) -> tuple[Any, np.ndarray]:
    """A PointCloud2 with xyz and rgb in points of 20 bytes, and its content (n, 20)."""
    rows = RNG.integers(0, 100, (height, width, 20), dtype=np.uint8)
    data = np.pad(rows.reshape(height, -1), ((0, 0), (0, padding)))
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7) for i, n in enumerate("xyz")]
    fields.append(SimpleNamespace(name="rgb", offset=16, datatype=7))
    values = {
        "width": width,
        "height": height,
        "fields": fields,
        "point_step": 20,
        "row_step": data.shape[1],
        "is_bigendian": False,
        "data": data.tobytes(),
        **changed,
    }
    return SimpleNamespace(**values), rows.reshape(-1, 20)


@pytest.mark.parametrize(("height", "padding"), [(1, 0), (4, 0), (4, 6)])
def test_points_and_colours_of_a_cloud(height: int, padding: int) -> None:
    made, rows = cloud(7, height, padding)
    np.testing.assert_array_equal(decode_cloud(made), rows[:, :12].copy().view("<f4"))
    np.testing.assert_array_equal(decode_cloud_colours(made), rows[:, [18, 17, 16]])


def test_a_cloud_without_colours_or_bytes_is_one_sentence() -> None:
    made, _ = cloud(7, 1, 0)
    made.fields.pop()
    with pytest.raises(ContractError, match="without a field rgb"):
        decode_cloud_colours(made)
    short, _ = cloud(7, 4, 6, data=b"12")
    with pytest.raises(ContractError, match="28 points has only 2 bytes"):
        decode_cloud(short)
