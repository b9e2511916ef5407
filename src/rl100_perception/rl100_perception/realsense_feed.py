"""RealSense cameras for the perception node: each in a thread, its images on the task's topics."""

from __future__ import annotations

import array
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from rl100_contracts.cameras import Camera
from rl100_contracts.decode import Intrinsics, split_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_node.executors import call_soon
from rl100_node.parameters import declare
from rl100_node.qos import latched_qos, qos_for
from rl100_perception.realsense import Factory, RealSense, Settings, Shot

RETRY_S = 1.0
SILENCE_S = 1.0
OPEN_AGAIN_S = 2.5  # so much later that diagnostics, twice a second, have told of the silence
UNITS_TOLERANCE = 1e-4
# Images that may wait for the node's thread, as many as of a camera on a topic: the recorder shall
# get all of them.
SHOTS = 10


def declare_realsense(node: Node, task: Task) -> dict[str, tuple[str, Settings]]:
    """Declare the parameters of RealSense cameras; sources and settings by the cameras' names.

    Raises:
        ContractError: a value is wrong, or names a camera that the task doesn't have.
    """
    text = declare(
        node,
        "realsense",
        "",
        "RealSense cameras that this node reads itself, as camera:serial, separated by commas; in "
        "place of a serial number the path of a recording",
    )
    size = declare(node, "realsense_size", "640x480", "size of their depth images, pixels")
    rate = declare(node, "realsense_rate", 30, "rate of their images, Hz", low=1, high=300)
    filters = declare(node, "realsense_filters", "", "filters of librealsense, comma-separated")
    names = tuple(part.strip() for part in filters.split(",") if part.strip())
    width, mark, height = size.partition("x")
    if not (mark and width.isdigit() and height.isdigit()):
        raise ContractError(f"parameter realsense_size is '{size}': write it like 640x480")
    found: dict[str, tuple[str, Settings]] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, mark, source = part.partition(":")
        if not mark or not source:
            raise ContractError(f"parameter realsense has '{part}': write it like camera:serial")
        camera = task.cameras.get(name)
        if camera is None or camera.depth is None:
            known = ", ".join(n for n, c in task.cameras.items() if c.depth is not None)
            raise ContractError(
                f"parameter realsense names '{name}', which is no depth camera of task "
                f"'{task.name}': it has {known or 'none'}"
            )
        colour = camera.color is not None
        found[name] = (source, Settings(int(width), int(height), rate, colour, names))
    return found


class RealSenseFeed:
    """Reads one camera in a thread and publishes its images, which the recorder records.

    The very messages that are published also go to ``take``, in the node's thread. A camera that
    is gone is opened again as soon as it is back.

    Args:
        node: the perception node.
        task: the contract.
        name: of the camera in the task.
        source: serial number or recording.
        settings: what the camera is asked for.
        take: called with a stream's name and a message.
    """

    def __init__(
        self,
        node: Node,
        task: Task,
        name: str,
        source: str,
        settings: Settings,
        take: Callable[[str, Any], None],
    ) -> None:
        self._node, self._camera, self._take = node, task.cameras[name], take
        self._source, self._settings = source, settings
        self.problem = f"RealSense {source} is being opened"
        self._topic = f"/rl100/cameras/{name}/depth_to_color"
        self._shots: deque[tuple[Factory, Shot]] = deque(maxlen=SHOTS)
        self._ended = threading.Event()
        self._publishers = {
            stream: node.create_publisher(
                CameraInfo if stream == self._camera.camera_info else Image,
                task.streams[stream].topic,
                qos_for(task.streams[stream], False),
            )
            for stream in streams_of(self._camera)
        }
        self._extrinsics = node.create_publisher(TransformStamped, self._topic, latched_qos())
        self._told: Factory | None = None
        self._thread = threading.Thread(target=self._run, name=f"realsense {source}", daemon=True)
        self._thread.start()

    def destroy(self) -> None:
        """End the thread and remove what was made in the node."""
        self._ended.set()
        self._thread.join()
        for publisher in (*self._publishers.values(), self._extrinsics):
            self._node.destroy_publisher(publisher)

    # --- in the camera's thread

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                camera = RealSense(self._source, self._settings)
            except ContractError as error:
                self.problem = str(error)
                self._ended.wait(RETRY_S)
                continue
            try:
                self._read(camera)
            finally:
                camera.close()

    def _read(self, camera: RealSense) -> None:
        """Read until nothing comes any more."""
        factory = camera.factory
        if abs(factory.depth_units / self._camera.depth_scale - 1.0) > UNITS_TOLERANCE:
            self.problem = (
                f"RealSense {self._source} measures in units of {factory.depth_units:.6g} m: write "
                f"depth_scale: {factory.depth_units:.6g} for its camera in the task"
            )
            self._ended.wait(RETRY_S)
            return
        last = time.monotonic()
        while not self._ended.is_set():
            shot = camera.wait(0.2)
            if shot is not None:
                self.problem, last = "", time.monotonic()
                self._shots.append((factory, shot))
                call_soon(self._node, self._hand_over)
                continue
            silent_s = time.monotonic() - last
            if silent_s > SILENCE_S:
                self.problem = f"RealSense {self._source} gives no images: is it unplugged?"
            if silent_s > OPEN_AGAIN_S:
                return

    # --- in the node's thread

    def _hand_over(self) -> None:
        if not self._shots or self._ended.is_set():
            return
        factory, shot = self._shots.popleft()
        seconds, nanoseconds = split_ns(shot.stamp_ns)
        stamp, frame = Time(sec=seconds, nanosec=nanoseconds), self._camera.frame
        if factory is not self._told:
            self._told = factory
            self._tell_extrinsics(factory, stamp)
        messages = {self._camera.camera_info: info_message(factory.intrinsics, frame, stamp)}
        if shot.colour is not None:
            messages[self._camera.color] = image_message(shot.colour, "rgb8", frame, stamp)
        messages[self._camera.depth] = image_message(shot.depth, "16UC1", frame, stamp)
        for stream, message in messages.items():
            assert stream is not None  # see declare_realsense
            self._publishers[stream].publish(message)
            self._take(stream, message)

    def _tell_extrinsics(self, factory: Factory, stamp: Time) -> None:
        if factory.rotation is None or factory.translation is None:
            return
        from scipy.spatial.transform import Rotation

        # The pose of the colour camera in the depth camera's frame, as in a tree of frames.
        turn = factory.rotation.T
        message = TransformStamped(child_frame_id=f"{self._camera.frame}_color")
        message.header.frame_id, message.header.stamp = self._camera.frame, stamp
        place, pose = -turn @ factory.translation, message.transform
        t, q = pose.translation, pose.rotation
        t.x, t.y, t.z = place.tolist()
        q.x, q.y, q.z, q.w = Rotation.from_matrix(turn).as_quat().tolist()
        self._extrinsics.publish(message)


def streams_of(camera: Camera) -> list[str]:
    """The streams that a RealSense gives for a camera of the task."""
    return [name for name in (camera.depth, camera.camera_info, camera.color) if name is not None]


def image_message(pixels: np.ndarray, encoding: str, frame: str, stamp: Time) -> Image:
    """An Image of pixels (H, W) or (H, W, 3)."""
    height, width = pixels.shape[:2]
    step = pixels.dtype.itemsize * pixels[0].size
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.header.frame_id, message.header.stamp = frame, stamp
    message.data = array.array("B", pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    return message


def info_message(lens: Intrinsics, frame: str, stamp: Time) -> CameraInfo:
    """The CameraInfo of intrinsics."""
    model = lens.distortion_model or "plumb_bob"
    info = CameraInfo(height=lens.height, width=lens.width, distortion_model=model)
    info.header.frame_id, info.header.stamp = frame, stamp
    info.d = list(lens.distortion) or [0.0] * 5
    info.k = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [lens.fx, 0.0, lens.cx, 0.0, 0.0, lens.fy, lens.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info
