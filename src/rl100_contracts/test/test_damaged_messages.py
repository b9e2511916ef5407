"""No message ends a node: whatever is in it, it is decoded, or refused with one sentence.

Pins, for clouds, colours, images, depth, camera info, joint states and poses whose parts do not fit
one another: the shape is the one that was promised, or a ContractError is raised.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rl100_contracts.decode import (
    decode,
    decode_camera_info,
    decode_cloud,
    decode_cloud_colours,
    decode_depth,
    decode_feedback,
    decode_joints,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.pixels import ENCODINGS, decode_pixels
from rl100_contracts.task import load_task

PUSH, RGB = load_task("push"), load_task("push_rgb")
UINT32 = st.integers(0, 2**32 - 1)
# Small sizes fit now and then; the largest ones are those that overflow.
SIZES = st.one_of(st.integers(0, 6), UINT32)
STEPS = st.one_of(st.integers(0, 40), UINT32)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def cloud_message(width: int, height: int, step: int, row_step: int, **changed: Any) -> Any:
    values = {
        "width": width,
        "height": height,
        "point_step": step,
        "row_step": row_step,
        "is_bigendian": False,
        "fields": [SimpleNamespace(name=n, offset=4 * i, datatype=7) for i, n in enumerate("xyz")],
        "data": b"",
    }
    return SimpleNamespace(**{**values, **changed})


@given(
    width=SIZES,
    height=SIZES,
    step=STEPS,
    row_step=STEPS,
    offsets=st.lists(STEPS, min_size=4, max_size=4),
    datatype=st.sampled_from([7, 7, 7, 2]),
    data=st.binary(max_size=300),
)
@example(2, 1, 12, 24, [0, 4, 12, 8], 7, bytes(24))  # z begins where the point ends
@example(2, 1, 16, 32, [0, 4, 14, 13], 7, bytes(32))  # and in the middle of it
@example(2**32 - 1, 0, 2**32 - 1, 0, [0, 4, 8, 0], 7, b"")
@example(0, 2**32 - 1, 12, 2**32 - 1, [0, 4, 8, 0], 7, b"")
def test_clouds(
    width: int,
    height: int,
    step: int,
    row_step: int,
    offsets: list[int],
    datatype: int,
    data: bytes,
) -> None:
    names = ("x", "y", "z", "rgb")
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype=datatype)
        for name, offset in zip(names, offsets, strict=True)
    ]
    message = cloud_message(width, height, step, row_step, fields=fields, data=data)
    for decoder, dtype in ((decode_cloud, np.float32), (decode_cloud_colours, np.uint8)):
        try:
            found = decoder(message)
        except ContractError as error:
            assert "\n" not in str(error)
        else:
            assert found.shape == (width * height, 3) and found.dtype == dtype


@pytest.mark.parametrize("offset", [9, 12, 2**32 - 4])
def test_a_field_outside_its_point_is_named(offset: int) -> None:
    message = cloud_message(2, 1, 12, 24, data=bytes(24))
    message.fields[2].offset = offset
    with pytest.raises(ContractError, match=f"field z at byte {offset} is not within its points"):
        decode_cloud(message)
    message.fields[2].name = "rgb"
    with pytest.raises(ContractError, match=f"field rgb at byte {offset} is not within"):
        decode_cloud_colours(message)


@given(
    width=SIZES,
    height=SIZES,
    step=STEPS,
    encoding=st.sampled_from([*ENCODINGS, "16UC1", "32FC1", "yuv422"]),
    big=st.booleans(),
    data=st.binary(max_size=300),
)
@example(0, 2**32 - 1, 2**32 - 1, "rgb8", False, b"")
@example(2**32 - 1, 0, 2**32 - 1, "32FC1", False, b"")
def test_images(width: int, height: int, step: int, encoding: str, big: bool, data: bytes) -> None:
    message = SimpleNamespace(
        width=width, height=height, step=step, encoding=encoding, is_bigendian=big, data=data
    )
    with suppress(ContractError):
        assert decode_pixels(message).shape == (height, width, 3)
    with suppress(ContractError):
        assert decode_depth(message, 0.001).shape == (height, width)
    with pytest.raises(ContractError):  # far too small for this task
        decode(RGB, "color", message)


def _bitmap(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + info


@pytest.mark.parametrize("size", [2**19, 2**31 - 1])
def test_a_compressed_image_that_claims_to_be_huge(size: int) -> None:
    message = SimpleNamespace(format="bmp", data=_bitmap(size, size))
    with pytest.raises(ContractError, match="cannot be decoded: use JPEG or PNG"):
        decode_pixels(message)


@given(st.sampled_from([".jpg", ".png"]), st.data())
def test_damaged_compressed_images(ending: str, data: st.DataObject) -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    image = bytearray(cv2.imencode(ending, pixels)[1].tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    message = SimpleNamespace(format=ending, data=bytes(image[: data.draw(st.integers(0, 400))]))
    with suppress(ContractError):
        assert decode_pixels(message).ndim == 3


@given(
    k=st.lists(NUMBERS, min_size=9, max_size=9),
    p=st.lists(NUMBERS, min_size=12, max_size=12),
    d=st.lists(NUMBERS, max_size=6),
    rectified=st.booleans(),
)
@example([1.0] * 9, [1.0] * 12, [0.1, float("nan")], False)
def test_camera_info(k: list[float], p: list[float], d: list[float], rectified: bool) -> None:
    message = SimpleNamespace(width=4, height=3, k=k, p=p, d=d, distortion_model="plumb_bob")
    try:
        found = decode_camera_info(message, rectified=rectified)
    except ContractError:
        return
    assert found.fx > 0 and found.fy > 0
    assert np.isfinite([found.fx, found.fy, found.cx, found.cy, *found.distortion]).all()


@given(
    names=st.lists(st.sampled_from([*PUSH.joint_names, "other"]), max_size=4),
    position=st.lists(NUMBERS, max_size=4),
)
@example(PUSH.joint_names, [0.1])
def test_joint_states(names: list[str], position: list[float]) -> None:
    message = SimpleNamespace(name=names, position=position, velocity=[], effort=[])
    with suppress(ContractError):
        assert decode(PUSH, "joint_states", message).shape == (2,)
    with suppress(ContractError):
        assert np.isfinite(decode_joints(PUSH, message)).all()


@given(position=st.tuples(*[NUMBERS] * 3), orientation=st.tuples(*[NUMBERS] * 4))
def test_poses(position: tuple[float, ...], orientation: tuple[float, ...]) -> None:
    """A value that is not finite is refused by what takes it: the assembler, the gateway."""
    pose = SimpleNamespace(
        position=SimpleNamespace(**dict(zip("xyz", position, strict=True))),
        orientation=SimpleNamespace(**dict(zip("xyzw", orientation, strict=True))),
    )
    message = SimpleNamespace(pose=pose)
    with suppress(ContractError):
        assert decode(PUSH, "tool_pose", message).shape == (2,)
        assert decode_feedback(PUSH, message).shape == (2,)
