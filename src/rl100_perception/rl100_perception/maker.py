"""Messages of cameras in, clouds out: the same code live and for bags.

Rules (they use nothing but the stamps in the messages, so that a bag gives the very clouds that
were made live):

* A cloud has the stamp t of an image of the task's first camera.
* Of every other stream of images belongs to it the earliest one whose stamp is within
  ``max_camera_skew_s`` of t. Below half a camera's period only one can be that near.
* A camera on the tool was where the tool was at its own image's stamp, less
  ``latency.observation_s``; see ``tool_poses``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rl100_contracts.cameras import Camera
from rl100_contracts.decode import (
    Intrinsics,
    decode_camera_info,
    decode_cloud,
    decode_cloud_colours,
    decode_raw_depth,
    message_stamp_ns,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.pixels import decode_pixels
from rl100_contracts.task import NANOSECONDS, Task
from rl100_perception.cloud import check_distortion
from rl100_perception.pipeline import CloudPipeline, CloudResult, NoPointsError
from rl100_perception.tool_poses import NotYet, ToolPoses
from rl100_perception.view import View

# Images of each stream that may wait for the others' (live).
LIVE_IMAGES = 16
POSES = 2048


@dataclass(frozen=True)
class Made:
    """One cloud: its stamp, ns, the images (by their streams) that it is made of, the points.

    ``views``: what each camera gave, by its name, with lens and tool pose.
    """

    stamp_ns: int
    images: Mapping[str, Any]
    result: CloudResult
    views: Mapping[str, View]

    @property
    def camera_skew_s(self) -> float:
        """Largest difference of the images' stamps, s."""
        stamps = [message_stamp_ns(image) for image in self.images.values()]
        return (max(stamps) - min(stamps)) / NANOSECONDS


@dataclass(frozen=True)
class Refused:
    """No cloud of an image, or a message that cannot be used, and why in one sentence."""

    stamp_ns: int
    reason: str


class CloudMaker:
    """Takes the messages of the task's cameras and makes a cloud of each set of images.

    Not thread-safe.

    Args:
        task: the contract.
        keep: images of each stream that may wait for the others'.

    Raises:
        ContractError: the task observes no cloud, or a stream's type doesn't fit.
    """

    def __init__(self, task: Task, *, keep: int = LIVE_IMAGES) -> None:
        self._task, self._cameras = task, task.cameras
        self._pipeline = CloudPipeline(task)
        self._skew_ns = round(task.cloud.max_camera_skew_s * NANOSECONDS)
        self._latency_ns = round(task.latency.observation_s * NANOSECONDS)
        self._images: dict[str, deque[tuple[int, Any]]] = {}
        self._infos: dict[str, Intrinsics | None] = {}
        self._info_problems: dict[str, str] = {}
        self._info_cameras: dict[str, Camera] = {}
        self._tools: dict[str, ToolPoses] = {}
        for name, camera in self._cameras.items():
            self._use(name, camera, keep)
        self._first = next(iter(self._images))
        self.images_lost = 0  # never part of a set, or passed over for a newer one

    def _use(self, name: str, camera: Camera, keep: int) -> None:
        kinds = {camera.depth: "Image", camera.points: "PointCloud2"}
        kinds[camera.camera_info] = "CameraInfo"
        for stream, kind in kinds.items():
            if stream is not None and self._task.streams[stream].type != f"sensor_msgs/msg/{kind}":
                raise ContractError(
                    f"task '{self._task.name}': stream '{stream}' of camera '{name}' is a "
                    f"{self._task.streams[stream].type}, perception needs sensor_msgs/msg/{kind}"
                )
        self._images[camera.source] = deque(maxlen=keep)
        if camera.color is not None and self._task.cloud.color:
            self._images[camera.color] = deque(maxlen=keep)
        if camera.camera_info is not None:
            self._infos[camera.camera_info] = None
            self._info_cameras[camera.camera_info] = camera
        if camera.tool_pose is not None:
            age = round(self._task.observation.max_skew_s * NANOSECONDS)
            topic = self._task.streams[camera.tool_pose].topic
            self._tools[camera.tool_pose] = ToolPoses(topic, age, POSES)

    @property
    def image_streams(self) -> list[str]:
        """Streams of images (or points), the first camera's first."""
        return list(self._images)

    @property
    def other_streams(self) -> list[str]:
        """Streams of camera infos and tool poses."""
        return [*self._infos, *self._tools]

    @property
    def has_images(self) -> bool:
        """Whether images of the first camera wait."""
        return bool(self._images[self._first])

    def clear(self) -> None:
        """Forget all images and poses, as after a break; camera infos are kept."""
        for images in self._images.values():
            images.clear()
        for poses in self._tools.values():
            poses.clear()

    def add(self, stream: str, message: Any) -> list[Made | Refused]:
        """Take one message, and make the clouds that it completes, oldest first."""
        refused = self.take(stream, message)
        return [refused] if refused is not None else list(self.complete())

    def take(self, stream: str, message: Any) -> Refused | None:
        """Take one message, and make no cloud of it yet; gives why it cannot be used."""
        if stream in self._infos:
            return self._add_info(stream, message)
        if stream in self._tools:
            self._tools[stream].add(message)
        else:
            self._add_image(stream, message)
        return None

    def complete(self, *, latest_only: bool = False) -> Iterator[Made | Refused]:
        """Make the clouds of all sets that are complete, oldest first, one at a time.

        Args:
            latest_only: only the newest set becomes a cloud, the others count as lost.
        """
        ready: list[tuple[int, dict[str, Any]]] = []
        reference = self._images[self._first]
        while reference:
            stamp, _ = reference[0]
            try:
                found = self._set_at(stamp)
            except ContractError as error:
                reference.popleft()
                self.images_lost += 1
                yield Refused(stamp, str(error))
                continue
            if found is None:
                break
            reference.popleft()
            ready.append((stamp, found))
        if latest_only and ready:
            self.images_lost += len(ready) - 1
            ready = ready[-1:]
        for stamp, images in ready:
            yield self._make(stamp, images)

    def _add_info(self, stream: str, message: Any) -> Refused | None:
        try:
            info = decode_camera_info(message, rectified=self._info_cameras[stream].rectified)
            if info != self._infos[stream]:
                check_distortion(info)
        except (ContractError, ValueError) as error:
            self._infos[stream] = None
            problem = f"{self._task.streams[stream].topic}: {error}"
            self._info_problems[stream] = problem
            return Refused(message_stamp_ns(message), problem)
        self._infos[stream] = info
        return None

    def _add_image(self, stream: str, message: Any) -> None:
        images, stamp = self._images[stream], message_stamp_ns(message)
        if images and stamp < images[-1][0]:
            self.clear()  # the clock went back: nothing from before fits what comes
        if images and stamp == images[-1][0]:
            return
        if len(images) == images.maxlen and stream == self._first:
            self.images_lost += 1
        images.append((stamp, message))

    # --- which images belong together

    def _set_at(self, stamp: int) -> dict[str, Any] | None:
        """The images of one cloud; None while some may still come.

        Raises:
            ContractError: there is no such set, and there will be none.
        """
        if self.waiting_for_info():
            return None
        found: dict[str, Any] = {}
        for stream in self._images:
            partner = self._partner(stream, stamp)
            if partner is None:
                return None
            found[stream] = partner
        return found if self._tools_known(found) else None

    def _partner(self, stream: str, stamp: int) -> Any | None:
        images = self._images[stream]
        if stream == self._first:
            return images[0][1]
        while images and images[0][0] < stamp - self._skew_ns:
            images.popleft()  # later clouds are newer still
        if not images:
            return None
        if images[0][0] > stamp + self._skew_ns:
            raise ContractError(
                f"no image on {self._task.streams[stream].topic} within "
                f"observation.cloud.max_camera_skew_s of one on "
                f"{self._task.streams[self._first].topic}: synchronise the cameras, or allow more"
            )
        return images[0][1]

    def _tools_known(self, images: Mapping[str, Any]) -> bool:
        try:
            for camera in self._cameras.values():
                self._tool_at(camera, images[camera.source])
        except NotYet:
            return False
        return True

    def _tool_at(self, camera: Camera, image: Any) -> Any:
        if camera.tool_pose is None:
            return None
        return self._tools[camera.tool_pose].at(message_stamp_ns(image) - self._latency_ns)

    # --- one cloud

    def _make(self, stamp: int, images: Mapping[str, Any]) -> Made | Refused:
        topic = self._task.streams[self._first].topic
        try:
            views = {}
            for name, camera in self._cameras.items():
                topic = self._task.streams[camera.source].topic
                views[name] = self._view(camera, images)
            return Made(stamp, images, self._pipeline.process(views), views)
        except (ContractError, NoPointsError) as error:
            self.images_lost += 1
            return Refused(stamp, f"{topic}: {error}")

    def _view(self, camera: Camera, images: Mapping[str, Any]) -> View:
        message = images[camera.source]
        tool = self._tool_at(camera, message)
        wants_colour = self._task.cloud.color
        if camera.points is not None:
            colours = decode_cloud_colours(message) if wants_colour else None
            return View(points=decode_cloud(message), colours=colours, tool=tool)
        assert camera.camera_info is not None  # a camera has either depth or points
        depth = decode_raw_depth(message)
        intrinsics = self._infos[camera.camera_info]
        assert intrinsics is not None  # see waiting_for_info
        if depth.shape != (intrinsics.height, intrinsics.width):
            # Here, so that the sentence names this camera's topic.
            raise ContractError(
                f"the depth image has {depth.shape[1]}x{depth.shape[0]} pixels but the camera "
                f"info describes {intrinsics.width}x{intrinsics.height}: use the camera info of "
                "the depth stream"
            )
        colours = None
        if wants_colour and camera.color is not None:
            colours = decode_pixels(images[camera.color])
            if colours.shape[:2] != depth.shape:
                raise ContractError(
                    f"the colour image has {colours.shape[1]}x{colours.shape[0]} pixels, the depth "
                    f"image {depth.shape[1]}x{depth.shape[0]}: use a colour stream that is aligned "
                    "to depth"
                )
        return View(depth, intrinsics, colours=colours, tool=tool)

    # --- what is missing

    def waiting_for_info(self) -> str:
        """One sentence on the first camera info that is missing or of no use; empty: none is."""
        for stream, info in self._infos.items():
            if info is None:
                missing = f"no camera info on {self._task.streams[stream].topic} yet"
                return self._info_problems.get(stream, missing)
        return ""

    def waiting_for(self) -> str:
        """One sentence on what the oldest image waits for; empty when no image waits."""
        reference = self._images[self._first]
        if not reference:
            return ""
        if missing := self.waiting_for_info():
            return missing
        stamp = reference[0][0]
        for stream, images in self._images.items():
            if not images:
                return f"no image on {self._task.streams[stream].topic} yet"
        for stream, poses in self._tools.items():
            lag, topic = poses.lag_ns(stamp), self._task.streams[stream].topic
            if lag is None:
                return f"no pose on {topic} yet"
            if lag > round(self._task.observation.max_skew_s * NANOSECONDS):
                return (
                    f"poses on {topic} are older than the image by more than "
                    "observation.max_skew_s: did they stop, or are they from another clock?"
                )
        return "waiting for the rest of the images"
