"""What one camera sees of the crop box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.cameras import Camera
from rl100_contracts.decode import Intrinsics, RawDepth, depth_in_metres
from rl100_contracts.errors import ContractError
from rl100_contracts.observation_spec import CropBox
from rl100_perception.cloud import Pose, camera_rays
from rl100_perception.filters import remove_edges

FloatArray = NDArray[np.float32]
ColourArray = NDArray[np.uint8]
Indices = NDArray[np.intp]
Interval = tuple[NDArray[Any], NDArray[Any]]
# The tables of each pixel's depths within the box are computed in single precision: points that
# are nearer than this (m) to one of its sides are tested by their coordinates.
MARGIN_M = 1e-4
# Up to so many points it is faster to compute them all than to find those that need no test.
FEW = 20_000


@dataclass(frozen=True)
class View:
    """What one camera gave at one time: a depth image with its intrinsics, or points.

    Attributes:
        depth: (H, W), along the optical axis: float32, m, or uint16, in the camera's units; 0 or
            NaN: nothing was seen.
        intrinsics: of the depth image.
        points: float32 (n, 3), m, in the camera's frame, in place of a depth image.
        colours: uint8 (H, W, 3), aligned to the depth image, or (n, 3) of the points.
        tool: pose of the tool in the base frame, for a camera that is mounted on it.
    """

    depth: RawDepth | None = None
    intrinsics: Intrinsics | None = None
    points: FloatArray | None = None
    colours: ColourArray | None = None
    tool: Pose | None = None


@dataclass(frozen=True)
class _Tables:
    """Of each pixel the depths that may be in the crop box, and those that surely are."""

    may: Interval
    sure: Interval

    def whole(self, scale: float) -> _Tables:
        """The same in whole units of ``scale`` m, uint16, rounded to the safe side."""

        def rounded(interval: Interval, outwards: int) -> Interval:
            low, high = (side.astype(np.float64) / scale for side in interval)
            empty = ~(low <= high)
            low = np.where(empty, 65535, np.clip(np.floor(low) + 1 - outwards, 0, 65535))
            high = np.where(empty, 0, np.clip(np.ceil(high) - 1 + outwards, 0, 65535))
            return low.astype(np.uint16), high.astype(np.uint16)

        return _Tables(rounded(self.may, 2), rounded(self.sure, -1))


def _within(
    depth: RawDepth, interval: Interval, inside: NDArray[np.bool_], scratch: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether each depth lies in its pixel's interval, written to ``inside``; NaN does not."""
    np.greater_equal(depth, interval[0], out=inside)
    inside &= np.less_equal(depth, interval[1], out=scratch)
    return inside


class Seen:
    """The points of a view that lie in the crop box; computed for those that are asked for.

    Attributes:
        places: of their pixels, row by row, or of the given points, ascending, (n,).
    """

    def __init__(self, places: Indices, points: Callable[[Indices | None], FloatArray]) -> None:
        self.places, self._points = places, points

    def __len__(self) -> int:
        return len(self.places)

    def points(self, chosen: Indices | None = None) -> FloatArray:
        """Points, float32 (k, 3), m, base frame: all, or those of ``places[chosen]``."""
        return self._points(chosen)


class BoxView:
    """Finds the points of a camera's views that lie in the crop box. Not thread-safe."""

    def __init__(self, camera: Camera, box: CropBox) -> None:
        self._camera = camera
        self._pose = Pose.of(camera.position, camera.quaternion_xyzw)
        self._box = Pose.of(box.position, box.quaternion_xyzw)
        self._aligned = box.aligned
        self._low = np.asarray(box.low, dtype=np.float32)
        self._high = np.asarray(box.high, dtype=np.float32)
        self._near, self._far = (np.float32(value) for value in camera.depth_range)
        self._intrinsics: Intrinsics | None = None
        self._rays = np.empty((3, 0), dtype=np.float32)
        self._span = (0, 0)
        # Kept: memory of this size would go back to the system after each image.
        self._scratch = np.empty((2, 0), dtype=bool)
        self._tables: dict[str, _Tables] = {}

    def crop(self, view: View) -> Seen:
        """What of a view lies in the crop box.

        Raises:
            ContractError: the image has another size than the intrinsics, or the distortion model
                is unknown.
        """
        to_box = self._to_box(view)
        if view.points is not None:
            columns = np.ascontiguousarray(view.points.T, dtype=np.float32)
            return self._of_columns(columns, columns[2], None, to_box)
        if view.depth is None or view.intrinsics is None:
            raise ValueError("a view has either depth and intrinsics, or points")
        return self._of_depth(view.depth, view.intrinsics, to_box)

    def _to_box(self, view: View) -> Pose:
        """The camera's pose in the frame of the box."""
        pose = self._pose
        if self._camera.mount == "tool":
            if view.tool is None:
                raise ValueError("a camera on the tool needs the tool's pose")
            pose = view.tool @ pose
        return pose if self._aligned else self._box.inverse() @ pose

    def _out_of_box(self, columns: FloatArray) -> FloatArray:
        """Points (3, n) of the box's frame as points (n, 3) of the base frame."""
        if not self._aligned:
            columns = self._box.apply(columns)
        return np.ascontiguousarray(columns.T)

    def _inside(self, columns: FloatArray) -> NDArray[np.bool_]:
        inside = np.ones(columns.shape[1], dtype=bool)
        for axis, column in enumerate(columns):  # NaN compares as False
            inside &= column >= self._low[axis]
            inside &= column <= self._high[axis]
        return inside

    def _of_columns(
        self, columns: FloatArray, depth: FloatArray, places: Indices | None, to_box: Pose
    ) -> Seen:
        """Of points (3, n) of the camera's frame, which have ``places`` in the image."""
        if places is None:
            places = np.flatnonzero((depth >= self._near) & (depth <= self._far))
            columns = columns[:, places]
        moved = to_box.apply(columns)
        kept = np.flatnonzero(self._inside(moved))
        moved = moved[:, kept]

        def points(chosen: Indices | None) -> FloatArray:
            return self._out_of_box(moved if chosen is None else moved[:, chosen])

        return Seen(places[kept], points)

    def _of_depth(self, image: RawDepth, intrinsics: Intrinsics, to_box: Pose) -> Seen:
        if image.shape != (intrinsics.height, intrinsics.width):
            raise ContractError(
                f"the depth image has {image.shape[1]}x{image.shape[0]} pixels but the camera "
                f"info describes {intrinsics.width}x{intrinsics.height}: use the camera info of "
                "the depth stream"
            )
        if intrinsics != self._intrinsics:
            self._prepare(intrinsics, to_box)
        scale = self._camera.depth_scale
        if self._camera.edge_threshold is not None:
            metres = depth_in_metres(image, scale)
            image = remove_edges(metres, self._camera.edge_threshold)
        if self._camera.mount == "tool":
            metres = depth_in_metres(image, scale).ravel()
            places = np.flatnonzero((metres >= self._near) & (metres <= self._far))
            depth = metres[places]
            return self._of_columns(self._rays[:, places] * depth, depth, places, to_box)
        return self._of_still(image.reshape(-1), to_box)

    def _of_still(self, flat: RawDepth, to_box: Pose) -> Seen:
        """Of a camera that stands still, from the depths in the order of the pixels, (H * W,)."""
        origin, scale = to_box.position.astype(np.float32), self._camera.depth_scale
        first, last = self._span  # no other pixel sees the box
        tables = self._tables[flat.dtype.kind]

        def columns_at(places: Indices) -> tuple[FloatArray, FloatArray]:
            depth = depth_in_metres(flat.take(places), scale)
            columns = np.empty((3, len(places)), dtype=np.float32)
            for axis, column in enumerate(columns):
                self._rays[axis].take(places, out=column, mode="clip")  # "raise" would buffer
                column *= depth
                column += origin[axis]
            return columns, depth

        def really(columns: FloatArray, depth: FloatArray) -> NDArray[np.bool_]:
            return self._inside(columns) & (depth >= self._near) & (depth <= self._far)

        depth = flat[first:last]
        inside, scratch = self._scratch
        _within(depth, tables.may, inside, scratch)
        places = np.flatnonzero(inside) + first
        if len(places) > FEW:
            sure = _within(depth, tables.sure, np.empty_like(inside), scratch)
            unsure = np.flatnonzero(np.greater(inside, sure, out=scratch))
            inside[unsure] = really(*columns_at(unsure + first))
            places = np.flatnonzero(inside) + first

            def points(chosen: Indices | None) -> FloatArray:
                wanted = places if chosen is None else places[chosen]
                return self._out_of_box(columns_at(wanted)[0])

            return Seen(places, points)
        columns, found = columns_at(places)
        kept = np.flatnonzero(really(columns, found))
        columns = columns.take(kept, axis=1)

        def known(chosen: Indices | None) -> FloatArray:
            return self._out_of_box(columns if chosen is None else columns[:, chosen])

        return Seen(places.take(kept), known)

    def _prepare(self, intrinsics: Intrinsics, to_box: Pose) -> None:
        """Rays of the pixels; for a camera that stands still also their depths in the box."""
        self._intrinsics = intrinsics
        if self._camera.mount == "tool":
            self._rays = camera_rays(intrinsics, np.eye(3))
            return
        self._rays = camera_rays(intrinsics, to_box.rotation)
        may = self._depths_in_box(to_box, MARGIN_M)
        sure = self._depths_in_box(to_box, -MARGIN_M)
        seeing = np.flatnonzero(may[0] <= may[1])
        first, last = (seeing[0], seeing[-1] + 1) if len(seeing) else (0, 0)
        self._span = int(first), int(last)
        self._scratch = np.empty((2, last - first), dtype=bool)
        cut = _Tables(*((low[first:last], high[first:last]) for low, high in (may, sure)))
        self._tables = {"f": cut, "u": cut.whole(self._camera.depth_scale)}

    def _depths_in_box(self, to_box: Pose, margin_m: float) -> Interval:
        """Of each pixel the depths (m) between which its ray is in range and in the box, which is
        larger by a margin (m) on each side."""
        margin = np.float32(margin_m)
        origin = to_box.position.astype(np.float32)
        shortest = np.full(self._rays.shape[1], self._near)
        longest = np.full(self._rays.shape[1], self._far)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for axis in range(3):
                first = (self._low[axis] - margin - origin[axis]) / self._rays[axis]
                second = (self._high[axis] + margin - origin[axis]) / self._rays[axis]
                np.maximum(shortest, np.minimum(first, second), out=shortest)
                np.minimum(longest, np.maximum(first, second), out=longest)
        return shortest, longest
