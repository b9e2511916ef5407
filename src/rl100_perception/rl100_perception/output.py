"""Clouds to PointCloud2 messages."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField


def cloud_message(
    frame: str, stamp: Any, xyz: NDArray[np.float32], colours: NDArray[np.uint8] | None = None
) -> PointCloud2:
    """A cloud of points (n, 3), m, in ``frame``: xyz, or xyzrgb with ``colours`` (n, 3)."""
    count, step = len(xyz), 12 if colours is None else 16
    message = PointCloud2(height=1, width=count, point_step=step, row_step=step * count)
    message.header.frame_id, message.header.stamp = frame, stamp
    message.is_dense = True
    names = "xyz" if colours is None else ("x", "y", "z", "rgb")
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    if colours is None:
        data = np.ascontiguousarray(xyz, dtype="<f4").tobytes()
    else:
        # As in PCL: a float whose bytes are blue, green, red.
        packed = np.zeros((count, 16), dtype=np.uint8)
        packed[:, :12] = np.ascontiguousarray(xyz, dtype="<f4").view(np.uint8).reshape(count, 12)
        packed[:, 12:15] = colours[:, ::-1]
        data = packed.tobytes()
    message.data = array.array("B", data)
    return message
