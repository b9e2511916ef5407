"""From what the cameras saw to the cloud of the task.

The node, the simulation without ROS and the recomputation from bags share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.task import Task
from rl100_perception.filters import above_plane, thin, voxel_means
from rl100_perception.sampling import sample_places
from rl100_perception.view import BoxView, Seen, View

FloatArray = NDArray[np.float32]
ColourArray = NDArray[np.uint8]


class NoPointsError(RuntimeError):
    """Nothing lies in the crop box: there is no cloud of this image."""


@dataclass(frozen=True)
class Points:
    """Points float32 (n, 3), m, base frame, and their colours uint8 (n, 3), or None."""

    xyz: FloatArray
    colours: ColourArray | None = None


@dataclass(frozen=True)
class CloudResult:
    """One cloud.

    Attributes:
        points: float32 (N, 3), m, base frame.
        colours: uint8 (N, 3), red first, or None.
        sampled_from: how many points there were to choose from.
        repeated: True when there were fewer than N, so that some are in it more than once.
        crop: gives all points that there were to choose from.
    """

    points: FloatArray
    colours: ColourArray | None
    sampled_from: int
    repeated: bool
    crop: Callable[[], Points]

    @property
    def cropped(self) -> Points:
        """All points that it was sampled from; computed when it is asked for."""
        return self.crop()


class _Fused:
    """What all cameras see of the crop box, one after the other."""

    def __init__(self, parts: list[Seen], colours: list[ColourArray]) -> None:
        self._parts, self._colours = parts, colours
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def points(self, chosen: NDArray[np.intp] | None = None) -> Points:
        """All points, or some by their places, ascending."""
        xyz, colours = [], []
        for index, part in enumerate(self._parts):
            own = None
            if chosen is not None:
                first, last = np.searchsorted(chosen, self._starts[index : index + 2])
                own = chosen[first:last] - self._starts[index]
            xyz.append(part.points(own))
            if self._colours:
                places = part.places if own is None else part.places[own]
                colours.append(self._colours[index].reshape(-1, 3)[places])
        if len(xyz) == 1:
            return Points(xyz[0], colours[0] if colours else None)
        return Points(np.concatenate(xyz), np.concatenate(colours) if colours else None)


class CloudPipeline:
    """Back-projects, transforms, crops, fuses and samples views. Not thread-safe.

    Raises:
        ContractError: the task observes no cloud.
    """

    def __init__(self, task: Task) -> None:
        self._spec = task.cloud
        self._views = {name: BoxView(c, self._spec.crop) for name, c in task.cameras.items()}

    def crop(self, views: Mapping[str, View]) -> Points:
        """All points in the crop box that are not of the plane, one per voxel where there are any.

        They come in the order of the cameras, of each in the order of its pixels (with voxels: in
        the order of these).

        Args:
            views: of every camera of the task, by its name.

        Raises:
            ContractError: an image doesn't fit its intrinsics, see ``BoxView.crop``.
        """
        return self._reduced(self._see(views).points())

    def process(self, views: Mapping[str, View]) -> CloudResult:
        """The cloud of what the cameras saw at one time; arguments and errors as for ``crop``.

        Raises:
            NoPointsError: no point is left.
        """
        spec, fused = self._spec, self._see(views)
        limit = spec.max_candidates
        if spec.plane is None and spec.voxel_size is None:
            # Only the candidates need to be computed.
            available = len(fused)
            some = fused.points(thin(available, limit) if available > limit else None)

            def crop() -> Points:
                return fused.points()

        else:
            whole = self._reduced(fused.points())
            available = len(whole.xyz)
            kept = thin(available, limit)
            colours = None if whole.colours is None else whole.colours[kept]
            some = Points(whole.xyz[kept], colours)

            def crop() -> Points:
                return whole

        if not available:
            raise NoPointsError(
                "no point lies in the crop box: is the camera covered, or is its pose in the task "
                "wrong?"
            )
        places = sample_places(some.xyz, spec.num_points)
        chosen = None if some.colours is None else some.colours[places]
        repeated = available < spec.num_points
        return CloudResult(some.xyz[places], chosen, available, repeated, crop)

    def _see(self, views: Mapping[str, View]) -> _Fused:
        parts = [camera.crop(views[name]) for name, camera in self._views.items()]
        colours = [views[name].colours for name in self._views] if self._spec.color else []
        known = [colour for colour in colours if colour is not None]
        return _Fused(parts, known if len(known) == len(parts) else [])

    def _reduced(self, points: Points) -> Points:
        """Without the plane, and one point per voxel, where the task asks for it."""
        cloud, colours = points.xyz, points.colours
        if self._spec.plane is not None:
            kept = above_plane(cloud, self._spec.plane)
            cloud, colours = cloud[kept], None if colours is None else colours[kept]
        if self._spec.voxel_size is not None and len(cloud):
            cloud, colours = voxel_means(cloud, self._spec.voxel_size, colours)
        return Points(cloud, colours)
