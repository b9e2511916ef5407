"""From a camera's image to the one that the policy sees: crop, then average areas.

In whole numbers, so every machine makes the same bytes of an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.observation_spec import ImageSpec


def _area_sums(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sums (count, k) over ``count`` equal parts of the rows of values (n, k).

    A row that two parts share counts in each by its share; weights are in units of 1 / count of a
    row, so those of one part add up to n.
    """
    rows = len(values)
    whole, share = np.divmod(np.arange(count + 1) * rows, count)
    before = np.zeros((rows + 1, values.shape[1]), dtype=np.int64)
    np.cumsum(values, axis=0, out=before[1:])
    shared = share[:, None] * values[np.minimum(whole, rows - 1)]
    return np.diff(count * before[whole] + shared, axis=0)


def resize_area(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The image (H, W, c) in ``height`` x ``width`` pixels, each the mean of the area it covers.

    Halves round up. ``height`` <= H and ``width`` <= W are expected.
    """
    rows, columns, channels = image.shape
    if (rows, columns) == (height, width):
        return np.array(image)
    sums = _area_sums(image.reshape(rows, columns * channels).astype(np.int64), height)
    across = sums.reshape(height, columns, channels).transpose(1, 0, 2)
    sums = _area_sums(across.reshape(columns, height * channels), width)
    total = rows * columns
    means = (sums + total // 2) // total
    pixels = means.reshape(width, height, channels).transpose(1, 0, 2)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def view_of(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """What the policy sees of an image (H, W, 3): uint8 (height, width, 3).

    Raises:
        ContractError: the image has fewer pixels than the task asks for.
    """
    height, width = image.shape[:2]
    left, top, used_width, used_height = spec.crop or (0, 0, width, height)
    if left + used_width > width or top + used_height > height:
        raise ContractError(
            f"a {width}x{height} image is too small for observation.image.crop "
            f"{[left, top, used_width, used_height]} (left, top, width, height)"
        )
    if used_width < spec.width or used_height < spec.height:
        raise ContractError(
            f"a {width}x{height} image is smaller than the {spec.width}x{spec.height} pixels of "
            "observation.image: let the camera give more, or ask for fewer"
        )
    used = image[top : top + used_height, left : left + used_width]
    return resize_area(used, spec.height, spec.width)
