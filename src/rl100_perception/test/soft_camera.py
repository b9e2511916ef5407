"""A RealSense made of software: librealsense's own device, sensors and frames, without hardware."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl100_perception.libusb import provide_libusb

provide_libusb()
rs = pytest.importorskip("pyrealsense2", exc_type=ImportError)

WIDTH, HEIGHT = 64, 48
SERIAL = "012345678901"


def lens(model: Any = None, coefficients: tuple[float, ...] = (0.0,) * 5, *, size: int = 1) -> Any:
    """Intrinsics of an image of ``size`` times 64x48 pixels."""
    made = rs.intrinsics()
    made.width, made.height = size * WIDTH, size * HEIGHT
    made.ppx, made.ppy, made.fx, made.fy = 31.2 * size, 24.1 * size, 60.0 * size, 59.0 * size
    made.model, made.coeffs = model or rs.distortion.none, list(coefficients)
    return made


class SoftCamera:
    """Depth and colour, which see from ``baseline`` m apart."""

    def __init__(self, depth_lens: Any = None, baseline: float = 0.0, units: float = 0.001) -> None:
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, SERIAL)
        self.device.register_info(rs.camera_info.name, "soft")
        self.depth_sensor = self.device.add_sensor("Depth")
        self.color_sensor = self.device.add_sensor("Color")
        self._depth = self._stream(
            self.depth_sensor, rs.stream.depth, 0, rs.format.z16, 2, depth_lens or lens()
        )
        self._color = self._stream(self.color_sensor, rs.stream.color, 1, rs.format.rgb8, 3, lens())
        self.units = units
        self.depth_sensor.add_read_only_option(rs.option.depth_units, units)
        between = rs.extrinsics()
        between.rotation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        between.translation = [baseline, 0.0, 0.0]
        self._depth.register_extrinsics_to(self._color, between)

    @staticmethod
    def _stream(sensor: Any, kind: Any, uid: int, form: Any, size: int, found: Any) -> Any:
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fps = kind, 0, uid, 30
        stream.width, stream.height, stream.bpp, stream.fmt = found.width, found.height, size, form
        stream.intrinsics = found
        return rs.video_stream_profile(sensor.add_video_stream(stream))

    def _frame(self, profile: Any, pixels: np.ndarray, size: int, number: int, ms: float) -> Any:
        frame = rs.software_video_frame()
        frame.stride, frame.bpp, frame.frame_number = pixels.shape[1] * size, size, number
        frame.timestamp, frame.domain = ms, rs.timestamp_domain.system_time
        frame.profile = profile.as_video_stream_profile()
        frame.pixels = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        return frame

    def send(self, number: int, depth: np.ndarray, colour: np.ndarray | None = None) -> int:
        """Send frames; returns their stamp, ns."""
        ms = 1000.0 + 33.0 * number
        frame = self._frame(self._depth, depth.astype("<u2"), 2, number, ms)
        frame.depth_units = self.units
        self.depth_sensor.on_video_frame(frame)
        if colour is not None:
            self.color_sensor.on_video_frame(self._frame(self._color, colour, 3, number, ms))
        return round(ms * 1e6)


def depth_image(number: int, size: int = 1) -> np.ndarray:
    """Random depths, in units."""
    return np.random.default_rng(number).integers(500, 1200, (size * HEIGHT, size * WIDTH))


def record(path: Path, count: int) -> None:
    """Record frames 1 to ``count`` with librealsense's own recorder, in their own time."""
    camera = SoftCamera()
    recorder = rs.recorder(str(path), camera.device)
    queues = []
    for sensor in recorder.query_sensors():
        sensor.open(sensor.get_stream_profiles())
        queues.append(rs.frame_queue(4))
        sensor.start(queues[-1])
    for number in range(1, count + 1):
        colour = np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8)
        camera.send(number, depth_image(number), colour)
        time.sleep(0.033)
    for sensor in recorder.query_sensors():
        sensor.stop()
        sensor.close()
    del recorder
