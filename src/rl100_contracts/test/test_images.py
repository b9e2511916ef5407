"""Colour images: what the policy sees of a message.

Pins: resizing is the mean of the covered area, to the half, against exact fractions; rgb8, bgr8 and
padded rows give the same pixels; crops; unusable messages are one sentence; the same message gives
the same bytes from rclpy and from a bag; frames of an observation follow the image where there is
no cloud, and take the newest image that is not newer where there is one.
"""

from __future__ import annotations

import array
from fractions import Fraction
from math import floor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rl100_contracts.decode import decode, decode_image
from rl100_contracts.errors import ContractError
from rl100_contracts.images import resize_area
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.observation import (
    ObservationAssembler,
    ObservationError,
    observed_streams,
)
from rl100_contracts.observation_spec import ImageSpec
from rl100_contracts.task import Task, load_task

RGB = load_task("push_rgb")
PERIOD = RGB.control.period_ns
START = 10**9


def _message(pixels: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Any:
    height, width = pixels.shape[:2]
    stored = pixels if encoding != "bgr8" else pixels[:, :, ::-1]
    rows = np.pad(stored.reshape(height, width * 3), ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        height=height,
        width=width,
        step=width * 3 + padding,
        encoding=encoding,
        data=array.array("B", rows.tobytes()),
    )


def _both() -> Task:
    """The push task with the image beside its cloud, and two frames."""
    values = load_task("push").model_dump(mode="json")
    values["streams"]["color"] = RGB.streams["color"].model_dump(mode="json")
    values["observation"]["image"] = {"stream": "color", "height": 8, "width": 8}
    return Task.model_validate(values)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_resizing_is_the_mean_of_the_covered_area(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    image = data.draw(arrays(np.uint8, (rows, columns, 3)))

    def shares(count: int, parts: int, part: int) -> list[Fraction]:
        low, high = Fraction(part * count, parts), Fraction((part + 1) * count, parts)
        return [max(Fraction(0), min(high, i + 1) - max(low, i)) for i in range(count)]

    made = resize_area(image, height, width)
    assert made.shape == (height, width, 3) and made.dtype == np.uint8
    for y in range(height):
        for x in range(width):
            down, across = shares(rows, height, y), shares(columns, width, x)
            for channel in range(3):
                total = sum(
                    a * b * int(image[i, j, channel])
                    for i, a in enumerate(down)
                    for j, b in enumerate(across)
                )
                mean = total / (sum(down) * sum(across))
                assert made[y, x, channel] == floor(mean + Fraction(1, 2))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), padding=st.integers(0, 5), blue_first=st.booleans())
def test_order_of_channels_and_padding_change_nothing(
    seed: int, padding: int, blue_first: bool
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    spec = ImageSpec(stream="color", height=8, width=10, crop=[3, 2, 24, 17])
    message = _message(pixels, "bgr8" if blue_first else "rgb8", padding)
    wanted = resize_area(pixels[2:19, 3:27], 8, 10)
    np.testing.assert_array_equal(decode_image(message, spec), wanted)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoding": "yuv422"}, "image encoding 'yuv422' is unknown: use rgb8, bgr8, rgba8"),
        ({"step": 383}, "a 128x96 colour image has only"),
        ({"data": array.array("B", [0] * 100)}, "has only 100 bytes of data"),
    ],
)
def test_an_unusable_message_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    message = _message(np.zeros((96, 128, 3), np.uint8))
    for key, value in change.items():
        setattr(message, key, value)
    with pytest.raises(ContractError, match=sentence):
        decode(RGB, "color", message)


def test_too_small_an_image_is_one_sentence() -> None:
    small = _message(np.zeros((80, 100, 3), np.uint8))
    with pytest.raises(ContractError, match=r"100x80 image is too small for .*crop \[16, 0, 96"):
        decode(RGB, "color", small)
    whole = ImageSpec(stream="color", height=96, width=96)
    with pytest.raises(ContractError, match="100x80 image is smaller than the 96x96 pixels"):
        decode_image(small, whole)


def test_live_and_recorded_messages_give_the_same_bytes() -> None:
    sensor_msgs = pytest.importorskip("sensor_msgs.msg")
    serialization = pytest.importorskip("rclpy.serialization")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    live = sensor_msgs.Image(height=96, width=128, encoding="rgb8", step=384)
    live.data = array.array("B", pixels.tobytes())
    name = "sensor_msgs/msg/Image"
    recorded = ensure_type(name).deserialize_cdr(serialization.serialize_message(live), name)
    first, second = decode(RGB, "color", live), decode(RGB, "color", recorded)
    assert first.dtype == np.uint8 and first.shape == (64, 64, 3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ({"stream": "tool_pose", "height": 8, "width": 8}, "role proprioception, not image"),
        ({"stream": "color", "height": 64, "width": 64, "crop": [0, 0, 32, 96]}, "never enlarged"),
        ({"stream": "color", "height": 8, "width": 8, "crop": [-1, 0, 9, 9]}, "not be negative"),
        (None, "give a cloud or an image"),
    ],
)
def test_a_wrong_task_is_refused(image: dict[str, Any] | None, sentence: str) -> None:
    values = RGB.model_dump(mode="json")
    values["observation"]["image"] = image
    with pytest.raises(ValueError, match=sentence):
        Task.model_validate(values)


def test_a_cloud_needs_its_camera_and_an_image_none() -> None:
    values = load_task("push").model_dump(mode="json")
    values["cameras"] = {}
    with pytest.raises(ValueError, match=r"cameras is missing: observation\.cloud"):
        Task.model_validate(values)
    assert not RGB.cameras
    with pytest.raises(ContractError, match="'push_rgb' observes no point cloud"):
        _ = RGB.cloud


def _state(assembler: ObservationAssembler, stamp: int) -> None:
    for name in ("joint_states", "tool_pose"):
        assembler.add(name, stamp, np.full(2, stamp * 1e-9, dtype=np.float32))


def _image(stamp: int, size: int) -> np.ndarray:
    return np.full((size, size, 3), stamp // PERIOD % 251, dtype=np.uint8)


def test_frames_follow_the_image_where_there_is_no_cloud() -> None:
    assembler = ObservationAssembler(RGB)
    assert observed_streams(RGB) == ["joint_states", "tool_pose", "color"]
    assert assembler.waiting_for() == "no message on /camera/color/image_raw yet"
    for stamp in (START, START + PERIOD):
        assembler.add("color", stamp, _image(stamp, 64))
        _state(assembler, stamp)
    assert assembler.latest_complete() == START + PERIOD
    seen = assembler.observe(START + PERIOD)
    assert seen.cloud is None and list(seen.tensors()) == ["state", "image"]
    np.testing.assert_array_equal(seen.image, _image(START + PERIOD, 64)[None])
    darker = seen.image.copy()
    darker[0, 5, 5, 1] += 1
    assert type(seen)(seen.stamp_ns, seen.state, None, darker).digest() != seen.digest()


def test_beside_a_cloud_the_newest_image_that_is_not_newer_counts() -> None:
    task = _both()
    assembler = ObservationAssembler(task)
    points = np.zeros((task.observation.num_points, 3), dtype=np.float32)
    stamps = [START + i * PERIOD for i in range(3)]
    for stamp in stamps:
        _state(assembler, stamp)
        assembler.add("points", stamp, points)
        assembler.add("color", stamp - PERIOD // 5, _image(stamp, 8))
    assert assembler.latest_complete() == stamps[1]  # an image for the last one may still come
    seen = assembler.observe(stamps[1])
    assert list(seen.tensors()) == ["state", "cloud", "image"]
    np.testing.assert_array_equal(seen.image, [_image(stamps[0], 8), _image(stamps[1], 8)])
    late = stamps[2] + 2 * PERIOD
    _state(assembler, late)
    assembler.add("points", late, points)
    with pytest.raises(ObservationError, match=r"on /camera/color/image_raw .* is older"):
        assembler.observe(late)


def test_samples_that_do_not_fit_are_refused() -> None:
    assembler = ObservationAssembler(RGB)
    with pytest.raises(ObservationError, match=r"shape \(96, 96, 3\), the task expects"):
        assembler.add("color", START, np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(ObservationError, match="values of type float32, the task expects uint8"):
        assembler.add("color", START, np.zeros((64, 64, 3), np.float32))
