"""A RealSense camera in this process: depth, colour aligned to it, and the factory's measures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_perception.libusb import provide_libusb

FILTERS = ("spatial", "temporal", "hole_filling")
FRAMES_KEPT = 4
# librealsense's names of lens models, as sensor_msgs/CameraInfo calls them.
MODELS = {"brown_conrady": "plumb_bob", "kannala_brandt4": "equidistant"}


@dataclass(frozen=True)
class Settings:
    """What a camera is asked for.

    Attributes:
        width, height: of the depth images, pixels.
        rate_hz: of both streams.
        colour: whether colour is read and aligned to depth.
        filters: of librealsense, in their order; see ``FILTERS``.
    """

    width: int = 640
    height: int = 480
    rate_hz: int = 30
    colour: bool = False
    filters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.filters:
            if name not in FILTERS:
                raise ContractError(
                    f"RealSense filter '{name}' is unknown: use {', '.join(FILTERS)}"
                )


@dataclass(frozen=True)
class Factory:
    """What the factory measured: lens of the depth images, and where colour sees from.

    ``rotation`` (3, 3) and ``translation`` (3,), m, take points of the depth optical frame into
    that of the colour camera; None without colour.
    """

    intrinsics: Intrinsics
    depth_units: float
    rotation: NDArray[np.float64] | None = None
    translation: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Shot:
    """One depth image, uint16 (H, W), in depth units, and the colour image, uint8 (H, W, 3), RGB,
    aligned to it; stamp in ns."""

    stamp_ns: int
    depth: NDArray[np.uint16]
    colour: NDArray[np.uint8] | None


def load_library() -> Any:
    """The module ``pyrealsense2``.

    Raises:
        ContractError: it is not installed, or cannot be loaded.
    """
    provide_libusb()
    try:
        import pyrealsense2
    except ImportError as error:
        raise ContractError(
            f"pyrealsense2 cannot be loaded ({error}): install it, or read the camera through its "
            "ROS driver"
        ) from None
    return pyrealsense2


def find_device(source: str) -> Any:
    """The device with a serial number, or that of a recorded file (a path that ends in .db3/.bag).

    Raises:
        ContractError: it isn't there; the sentence names those that are.
    """
    rs = load_library()
    context = rs.context()
    if source.endswith((".db3", ".bag")):
        if not Path(source).is_file():
            raise ContractError(f"{source}: no such recording of a RealSense")
        return context.load_device(source)
    serial = rs.camera_info.serial_number
    found = {device.get_info(serial): device for device in context.query_devices()}
    if source not in found:
        others = f"connected: {', '.join(sorted(found))}" if found else "none is connected"
        raise ContractError(f"no RealSense with the serial number {source} is there ({others})")
    return found[source]


def intrinsics_of(found: Any) -> Intrinsics:
    """librealsense's intrinsics as ours; unknown lens models keep their name."""
    model, coefficients = found.model.name, tuple(float(value) for value in found.coeffs)
    pinhole = (found.width, found.height, found.fx, found.fy, found.ppx, found.ppy)
    if not any(coefficients):
        return Intrinsics(*pinhole)
    if model == "kannala_brandt4":
        coefficients = coefficients[:4]
    return Intrinsics(*pinhole, MODELS.get(model, model), coefficients)


class _Clock:
    """Stamps of frames in the time of this machine, ns.

    Frames whose stamps count from the camera's start are moved by the smallest delay that was seen
    between such a stamp and the frame's arrival.
    """

    def __init__(self, rs: Any) -> None:
        self._hardware = rs.timestamp_domain.hardware_clock
        self._offset_ns: int | None = None

    def stamp_ns(self, frame: Any) -> int:
        stamp = round(frame.get_timestamp() * 1e6)
        if frame.get_frame_timestamp_domain() != self._hardware:
            return stamp
        offset = time.time_ns() - stamp
        self._offset_ns = min(offset, self._offset_ns or offset)
        return stamp + self._offset_ns


class RealSense:
    """An open camera. Call ``close`` when done.

    Args:
        source: serial number, or the path of a recording.
        settings: what is asked for.
        find: gives the device of a source.

    Raises:
        ContractError: the camera isn't there, or has no such streams.
    """

    def __init__(
        self, source: str, settings: Settings, find: Callable[[str], Any] = find_device
    ) -> None:
        self._rs = rs = load_library()
        self.source, self._settings = source, settings
        self._clock = _Clock(rs)
        self._depths: deque[Any] = deque(maxlen=FRAMES_KEPT)
        self._colours: deque[Any] = deque(maxlen=FRAMES_KEPT)
        self._arrived = threading.Condition()
        self._pair: list[Any] = []
        self._joined = rs.frame_queue(2, True)
        self._joiner = rs.processing_block(self._join)
        self._joiner.start(self._joined)
        self._align = rs.align(rs.stream.depth)
        made = {
            "spatial": rs.spatial_filter,
            "temporal": rs.temporal_filter,
            "hole_filling": rs.hole_filling_filter,
        }
        self._filters = [made[name]() for name in settings.filters]
        self._device = find(source)
        self._open: list[Any] = []
        try:
            self.factory = self._start()
        except RuntimeError as error:
            self.close()
            raise ContractError(f"RealSense {source} cannot be started ({error})") from None
        except ContractError:
            self.close()
            raise

    def _profile(self, sensors: Sequence[Any], kind: Any, form: Any) -> tuple[Any, Any]:
        wanted, rs = self._settings, self._rs
        for sensor in sensors:
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != kind or profile.format() != form:
                    continue
                video = profile.as_video_stream_profile()
                # Colour is aligned to depth, so its size is free: the first that fits in rate.
                fits = kind == rs.stream.color or (video.width(), video.height()) == (
                    wanted.width,
                    wanted.height,
                )
                if fits and profile.fps() == wanted.rate_hz:
                    return sensor, profile
        name = "depth" if kind == rs.stream.depth else "colour"
        raise ContractError(
            f"RealSense {self.source} has no {name} stream of {wanted.width}x{wanted.height} at "
            f"{wanted.rate_hz} Hz in this format: choose another size or rate"
        )

    def _start(self) -> Factory:
        rs, sensors = self._rs, self._device.query_sensors()
        if self._device.is_playback():
            # Where nobody reads a file in its own time, its frames all come at once.
            self._device.as_playback().set_real_time(True)
        depth = self._profile(sensors, rs.stream.depth, rs.format.z16)
        chosen = [depth]
        if self._settings.colour:
            chosen.append(self._profile(sensors, rs.stream.color, rs.format.rgb8))
        for sensor in {id(s): s for s, _ in chosen}.values():
            if sensor.supports(rs.option.global_time_enabled):
                sensor.set_option(rs.option.global_time_enabled, 1)
            sensor.open([profile for owner, profile in chosen if owner is sensor])
            self._open.append(sensor)
        units = 0.001
        if depth[0].supports(rs.option.depth_units):
            units = float(depth[0].get_option(rs.option.depth_units))
        for sensor in self._open:
            sensor.start(self._on_frame)
        factory = Factory(intrinsics_of(depth[1].as_video_stream_profile().intrinsics), units)
        if not self._settings.colour:
            return factory
        found = depth[1].get_extrinsics_to(chosen[1][1])
        rotation = np.array(found.rotation).reshape(3, 3).T  # librealsense's is column by column
        return Factory(factory.intrinsics, units, rotation, np.array(found.translation))

    def _on_frame(self, frame: Any) -> None:  # in a thread of librealsense
        frame.keep()
        is_depth = frame.get_profile().stream_type() == self._rs.stream.depth
        with self._arrived:
            (self._depths if is_depth else self._colours).append(frame)
            self._arrived.notify()

    def _next(self) -> tuple[Any, Any] | None:
        """The newest depth frame with the colour frame of its time; older ones are left out."""
        if not self._settings.colour:
            frames = (self._depths[-1], None) if self._depths else None
            self._depths.clear()
            return frames
        half_ms = 500.0 / self._settings.rate_hz
        for depth in reversed(self._depths):
            for colour in self._colours:
                if abs(colour.get_timestamp() - depth.get_timestamp()) < half_ms:
                    while self._depths.popleft() is not depth:
                        pass
                    return depth, colour
        return None

    def wait(self, timeout_s: float) -> Shot | None:
        """The next images, or None when there are none in time (is it unplugged?)."""
        with self._arrived:
            frames: list[tuple[Any, Any]] = []

            def found() -> bool:
                pair = self._next()
                if pair is not None:
                    frames.append(pair)
                return pair is not None

            if not self._arrived.wait_for(found, timeout_s):
                return None
        depth, colour = frames[0]
        stamp = self._clock.stamp_ns(depth)
        image = None
        if colour is not None:
            depth, colour = self._aligned(depth, colour)
            image = np.array(colour.get_data(), dtype=np.uint8)
        for one in self._filters:
            depth = one.process(depth)
        return Shot(stamp, np.array(depth.get_data(), dtype=np.uint16), image)

    def _join(self, frame: Any, source: Any) -> None:
        source.frame_ready(source.allocate_composite_frame(self._pair))

    def _aligned(self, depth: Any, colour: Any) -> tuple[Any, Any]:
        """The two frames, colour as the depth camera would see it."""
        self._pair = [depth, colour]
        self._joiner.invoke(depth)
        both = self._align.process(self._joined.wait_for_frame(1000).as_frameset())
        self._pair = []
        return both.get_depth_frame(), both.get_color_frame()

    def close(self) -> None:
        """Stop the streams; a camera that is gone already is no error."""
        for sensor in self._open:
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:
                    continue
        self._open = []
        self._depths.clear()
        self._colours.clear()
