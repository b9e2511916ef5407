"""Colour images of cameras to RGB arrays, raw or compressed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError

ImageArray = NDArray[np.uint8]
# Of each encoding the bytes of a pixel, and which of them are red, green and blue.
ENCODINGS: dict[str, tuple[int, list[int]]] = {
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}


def decode_pixels(msg: Any) -> ImageArray:
    """Image (rgb8, bgr8, rgba8, bgra8 or mono8) or CompressedImage (JPEG, PNG) to RGB.

    Returns:
        uint8 (H, W, 3), red first; it may share memory with the message.

    Raises:
        ContractError: another encoding, too few bytes, or compressed bytes that are no image.
    """
    if hasattr(msg, "format"):
        return _decompress(msg)
    if msg.encoding not in ENCODINGS:
        raise ContractError(
            f"image encoding '{msg.encoding}' is unknown: use {', '.join(ENCODINGS)}"
        )
    size, order = ENCODINGS[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    raw = np.frombuffer(msg.data, dtype=np.uint8)
    if step < size * width or raw.size < height * step:
        raise ContractError(f"a {width}x{height} colour image has only {raw.size} bytes of data")
    rows = raw[: height * step].reshape(height, step)[:, : size * width]
    pixels = rows.reshape(height, width, size)
    if order == [0, 1, 2]:
        return pixels[:, :, :3]
    return pixels[:, :, 2::-1] if size > 1 else np.repeat(pixels, 3, axis=2)


def _decompress(msg: Any) -> ImageArray:
    # Only tasks with compressed images need OpenCV.
    import cv2

    if "compressedDepth" in str(msg.format):
        raise ContractError("a compressed depth image cannot be used: record the raw one")
    data = np.frombuffer(msg.data, dtype=np.uint8)
    pixels = None
    # OpenCV refuses most of what is damaged with None, but a size beyond its own limit it throws.
    with suppress(cv2.error):
        if data.size:
            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ContractError(
            f"a compressed image of format '{msg.format}' cannot be decoded: use JPEG or PNG"
        )
    return np.asarray(pixels, dtype=np.uint8)[:, :, ::-1]
