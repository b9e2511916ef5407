"""Clouds of a task's cameras for a person to look at: live, or from a recorded episode."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl100_contracts.decode import Intrinsics
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_perception.cloud import Pose
from rl100_perception.maker import LIVE_IMAGES, CloudMaker, Made

PATIENCE_S = 15.0
# Of each camera. In a bag the streams of one moment may stand some distance apart.
IMAGES_KEPT = 64


@dataclass(frozen=True)
class Look:
    """One cloud, and the cameras that it is of.

    Attributes:
        made: the cloud.
        lenses: intrinsics of each camera with depth images.
        poses: optical frame of each camera in the base frame.
    """

    made: Made
    lenses: Mapping[str, Intrinsics]
    poses: Mapping[str, Pose]


class Looker:
    """Makes clouds of messages, with the places of their cameras.

    Args:
        task: the contract.
        keep: images of each stream that may wait for the others'.
    """

    def __init__(self, task: Task, keep: int = IMAGES_KEPT) -> None:
        self._task, self.maker = task, CloudMaker(task, keep=keep)
        self.streams = [*self.maker.image_streams, *self.maker.other_streams]
        self.looks: list[Look] = []
        self.problem = ""

    def add(self, stream: str, message: Any) -> None:
        """Take one message of ``streams``."""
        for outcome in self.maker.add(stream, message):
            if isinstance(outcome, Made):
                self.looks.append(self._look(outcome))
            else:
                self.problem = outcome.reason

    def _look(self, made: Made) -> Look:
        lenses, poses = {}, {}
        for name, view in made.views.items():
            camera = self._task.cameras[name]
            pose = Pose.of(camera.position, camera.quaternion_xyzw)
            poses[name] = pose if view.tool is None else view.tool @ pose
            if view.intrinsics is not None:
                lenses[name] = view.intrinsics
        return Look(made, lenses, poses)


def follow(task: Task) -> Generator[Look | None, None, None]:
    """The newest clouds of the task's cameras, made here from their images, for ever.

    Yields:
        the newest cloud, or None while there is no newer one, many times a second.

    Raises:
        ContractError: nothing comes, or it cannot be used; one sentence.
    """
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from rl100.own_node import OwnNode
    from rl100_node.messages import message_class

    looker, own = Looker(task, LIVE_IMAGES), OwnNode("rl100_look")

    def taker(stream: str) -> Callable[[Any], None]:
        return lambda message: looker.add(stream, message)

    try:
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name in looker.streams:
            stream = task.streams[name]
            kind = message_class(stream.type)
            own.node.create_subscription(kind, stream.topic, taker(name), qos)
        end = time.monotonic() + PATIENCE_S
        while looker.looks or time.monotonic() < end:
            own.spin_once(0.02)
            if looker.looks:
                newest = looker.looks[-1]
                looker.looks.clear()
                end = float("inf")
                yield newest
            else:
                yield None
        first = task.streams[looker.streams[0]].topic
        if not own.node.count_publishers(first):
            looker.problem = f"nobody publishes {first}: is the camera's driver running?"
    finally:
        own.close()
    reason = looker.problem or looker.maker.waiting_for() or f"no image on {first}"
    raise ContractError(f"no cloud within {PATIENCE_S:g} s: {reason}")


def live_looks(task: Task, count: int) -> list[Look]:
    """The next clouds of the task's cameras, at least one, ``count`` if they come in time.

    Raises:
        ContractError: see ``follow``.
    """
    looks: list[Look] = []
    end = time.monotonic() + PATIENCE_S
    with closing(follow(task)) as source:
        for look in source:
            if look is not None:
                looks.append(look)
            if len(looks) >= count or (looks and time.monotonic() > end):
                break
    return looks


def recorded_looks(episode: Path, task: Task) -> list[Look]:
    """All clouds of a recorded episode, made again from its images.

    Raises:
        ContractError: the bag is damaged or of another task, or gives no cloud.
    """
    looker = Looker(task)
    with EpisodeReader(episode, task) as reader:
        for name, message in reader.messages(looker.streams):
            looker.add(name, message)
    if not looker.looks:
        reason = looker.problem or "it has no images of the cameras"
        raise ContractError(f"{episode}: no cloud can be made of it: {reason}")
    return looker.looks
