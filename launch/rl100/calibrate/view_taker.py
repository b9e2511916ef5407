"""Takes views of a board, one after the other, from messages: live ones, or those of a bag."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.calibration import Board
from rl100_contracts.decode import message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_perception.calibration.boards import BoardDetector, NoBoardError
from rl100_perception.calibration.capture import NotStillError, PoseHistory, is_new
from rl100_perception.calibration.hand_eye import View
from rl100_perception.calibration.lens import Lens, intrinsics_of
from rl100_perception.calibration.views import ViewsFile, ViewsFolder, grey_image

ImageArray = NDArray[np.uint8]
COMPRESSED = "/compressed"  # image_transport's name for the topic of the same images as JPEG


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        camera: name of the camera.
        mount: ``fixed`` or ``tool``.
        board: that is shown.
        image, camera_info: topics.
        count: views after which it is enough.
        auto: take views when the robot stands still, instead of on a key.
        folder: where the views are kept.
        add: to those that are in the folder.
    """

    camera: str
    mount: str
    board: Board
    image: str
    camera_info: str
    count: int
    auto: bool
    folder: Path
    add: bool = False


def is_rectified(topic: str) -> bool:
    """Whether a topic carries rectified images, by the names that ROS gives them."""
    return "rect" in topic.removesuffix(COMPRESSED).rsplit("/", 1)[-1]


def info_topic(topic: str) -> str:
    """The topic of the camera info beside an image, by the names that ROS gives them."""
    return topic.removesuffix(COMPRESSED).rsplit("/", 1)[0] + "/camera_info"


class Kind(Enum):
    """What became of an image."""

    TAKEN = "taken"
    NOT_STILL = "not still"
    NOT_NEW = "not new"
    NO_BOARD = "no board"


@dataclass(frozen=True)
class Outcome:
    """What became of an image, and a sentence on it."""

    kind: Kind
    text: str


class ViewTaker:
    """Takes views of the board into a folder.

    Args:
        wanted: what the user asked for.
        task: names the frames.
        image: the first image, for its frame.
        info: the camera's info.

    Raises:
        ContractError: the camera info cannot be used, or the folder has views already.
    """

    def __init__(self, wanted: Wanted, task: Task, image: Any, info: Any) -> None:
        self._wanted = wanted
        try:
            intrinsics = intrinsics_of(info, rectified=is_rectified(wanted.image))
            self.lens = Lens(intrinsics)
        except ContractError as error:
            raise ContractError(f"{wanted.camera_info}: {error}") from None
        frame = image.header.frame_id or info.header.frame_id
        if not frame:
            raise ContractError(
                f"{wanted.image} and {wanted.camera_info} have no frame_id: the driver must say "
                "in which frame its images are"
            )
        self._detector = BoardDetector(wanted.board)
        self.header = ViewsFile.model_validate(
            {
                "camera": wanted.camera,
                "frame": frame,
                "mount": wanted.mount,
                "base_frame": task.base_frame,
                "tool_frame": task.tool_frame,
                "board": wanted.board,
                "intrinsics": intrinsics,
            }
        )
        self._folder = ViewsFolder(wanted.folder, self.header, add=wanted.add)
        self.views: list[View] = []
        for view, picture in self._folder.stored():
            with suppress(NoBoardError):
                corners = self._detector.find(picture)
                self.views.append(View(view.name, view.robot(), corners))

    @property
    def folder(self) -> Path:
        """Where the views are kept."""
        return self._wanted.folder

    @property
    def enough(self) -> bool:
        """Whether there are as many views as are wanted."""
        return len(self.views) >= self._wanted.count

    def consider(self, message: Any, poses: PoseHistory) -> Outcome:
        """Take a view, if there is one in an image.

        Args:
            message: the image.
            poses: of the tool, around the image's stamp.

        Raises:
            ContractError: images of this kind cannot be used.
        """
        try:
            robot = poses.at(message_stamp_ns(message))
        except NotStillError as error:
            return Outcome(Kind.NOT_STILL, f"no view: {error}")
        if self._wanted.auto and not is_new(robot, [view.robot for view in self.views]):
            text = "waiting for the robot to stand still somewhere new"
            return Outcome(Kind.NOT_NEW, text)
        image = self._image(message)
        try:
            corners = self._detector.find(image)
        except NoBoardError as error:
            return Outcome(Kind.NO_BOARD, f"no view: {error}")
        name = self._folder.add(image, robot).name
        self.views.append(View(name, robot, corners))
        return Outcome(Kind.TAKEN, f"{name}: {len(corners.points)} corners")

    def _image(self, message: Any) -> ImageArray:
        try:
            image = grey_image(message)
        except ContractError as error:
            raise ContractError(f"{self._wanted.image}: {error}") from None
        height, width = image.shape
        expected = self.lens.intrinsics
        if (width, height) != (expected.width, expected.height):
            raise ContractError(
                f"{self._wanted.image} has {width}x{height} pixels, but {self._wanted.camera_info} "
                f"describes {expected.width}x{expected.height}: use the camera info of this stream"
            )
        return image
