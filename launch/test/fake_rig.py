"""A process that plays a robot with a board and a camera, over real topics.

    python fake_rig.py MOUNT SEED DOES

publishes ``/tool_pose``, ``/camera/color/image_raw`` and ``/camera/color/camera_info`` until it is
killed, and prints the truth, the pose of the camera, as JSON first. DOES is ``stop`` (stand still
at one pose after the other), ``move`` (never stand still) or ``blank`` (there is no board).
"""

from __future__ import annotations

import array
import itertools
import json
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image

from rl100_contracts.calibration import Board, LensIntrinsics
from rl100_perception.calibration.boards import BoardDetector
from rl100_perception.calibration.lens import Lens
from rl100_perception.calibration.rendering import Rig

LENS = LensIntrinsics(
    width=640,
    height=480,
    fx=605.0,
    fy=607.0,
    cx=321.0,
    cy=242.0,
    distortion_model="plumb_bob",
    distortion=[0.08, -0.15, 0.001, 0.0005, 0.02],
)
POSES = 10
PERIOD_S = 0.02
STAND, GO = 100, 25  # periods


def main(mount: str, seed: int, does: str) -> None:
    rng = np.random.default_rng(seed)
    rig = Rig(BoardDetector(Board()), Lens(LENS), mount, rng, robot_noise_m=5e-5)
    tools = [rig.motion() for _ in range(POSES)]
    blank = np.full((LENS.height, LENS.width), 120, np.uint8)
    pictures = [blank if does == "blank" else rig.picture(tool) for tool in tools]
    print(json.dumps(rig.x.tolist()), flush=True)
    rclpy.init()
    node = rclpy.create_node("fake_rig")
    images = node.create_publisher(Image, "/camera/color/image_raw", qos_profile_sensor_data)
    infos = node.create_publisher(CameraInfo, "/camera/color/camera_info", qos_profile_sensor_data)
    poses = node.create_publisher(PoseStamped, "/tool_pose", 10)
    image = Image(height=LENS.height, width=LENS.width, step=LENS.width, encoding="mono8")
    image.header.frame_id = "color_optical"
    info = CameraInfo(height=LENS.height, width=LENS.width, distortion_model="plumb_bob")
    info.d = LENS.distortion
    info.k = [LENS.fx, 0.0, LENS.cx, 0.0, LENS.fy, LENS.cy, 0.0, 0.0, 1.0]

    def publish(tool: np.ndarray, picture: np.ndarray | None) -> None:
        pose = PoseStamped()
        pose.header.stamp = node.get_clock().now().to_msg()
        pose.header.frame_id = "base_link"
        measured = rig.measured(tool)
        p, q = pose.pose.position, pose.pose.orientation
        p.x, p.y, p.z = (float(v) for v in measured[:3, 3])
        q.x, q.y, q.z, q.w = (float(v) for v in Rotation.from_matrix(measured[:3, :3]).as_quat())
        poses.publish(pose)
        if picture is not None:
            image.header.stamp = pose.header.stamp
            image.data = array.array("B", picture.tobytes())
            images.publish(image)
            infos.publish(info)
        time.sleep(PERIOD_S)

    for index in itertools.cycle(range(POSES)):
        here, there = tools[index], tools[(index + 1) % POSES]
        for period in range(STAND if does != "move" else 0):
            publish(here, pictures[index] if period % 5 == 0 else None)
        for period in range(GO):
            moving = here.copy()
            moving[:3, 3] += (there[:3, 3] - here[:3, 3]) * (period + 1) / GO
            publish(moving, pictures[index] if period % 5 == 0 else None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
