"""Pins the depth camera: geometry against closed form, culling, range, and noise statistics."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from rl100_contracts.task import Task
from rl100_sim.camera import CameraModel, DepthCamera, DepthNoise, quaternion_matrix
from rl100_sim.world import PushWorld, SensorNoise

BOX = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 .1" pos="0 0 0" group="0"/>
  <body pos="0.1 0 0.1"><freejoint/><geom type="box" size=".1 .05 .1" group="1"/></body>
</worldbody></mujoco>
"""


def _down_camera(height: float = 1.0) -> CameraModel:
    """A camera that looks straight down; x of the image is x of the world, y is mirrored."""
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    return CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5, np.array([0.0, 0.0, height]), rotation)


def _scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(BOX)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_depth_of_plane_and_box_in_closed_form() -> None:
    model, data = _scene()
    camera = _down_camera()
    depth = DepthCamera(model, camera).render(data)
    v, u = np.mgrid[0:48, 0:64]
    # At the box's top (0.8 m away) and at the plane (1 m away).
    x_top, y_top = (u - 31.5) / 60.0 * 0.8, -(v - 23.5) / 60.0 * 0.8
    on_top = (np.abs(x_top - 0.1) < 0.1) & (np.abs(y_top) < 0.05)
    assert depth[on_top] == pytest.approx(0.8, abs=1e-6)
    far = (np.abs(x_top - 0.1) > 0.15) | (np.abs(y_top) > 0.1)
    assert depth[far] == pytest.approx(1.0, abs=1e-6)
    assert on_top.sum() > 50


def test_deprojected_points_lie_on_the_surfaces_in_the_base_frame() -> None:
    model, data = _scene()
    camera = _down_camera()
    sensor = DepthCamera(model, camera)
    image = sensor.sense(sensor.render(data), None, np.random.default_rng(0))
    points = camera.deproject(image)
    top = points[points[:, 2] > 0.1]
    assert np.abs(top[:, 2] - 0.2).max() < 1e-3
    assert top[:, 0].min() > -0.02 and top[:, 0].max() < 0.22
    assert np.abs(top[:, 1]).max() < 0.06


def test_culled_image_equals_casting_every_ray(world: PushWorld) -> None:
    for seed in range(8):
        world.reset(seed)
        world.advance(3)
        mujoco.mj_kinematics(world.model, world.data)
        fast = DepthCamera(world.model, world.camera)
        whole = DepthCamera(world.model, world.camera)
        whole._candidates = lambda data: np.arange(  # type: ignore[method-assign]
            world.camera.width * world.camera.height
        )
        assert np.array_equal(fast.render(world.data), whole.render(world.data))


def test_nothing_and_out_of_range_are_zero() -> None:
    model, _ = _scene()
    sensor = DepthCamera(model, _down_camera())
    depth = np.full((48, 64), 1.0, dtype=np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = np.inf, 2.5, 0.05
    for noise in (None, DepthNoise(dropout=0.0)):
        image = sensor.sense(depth, noise, np.random.default_rng(0))
        assert image.dtype == np.uint16
        assert image[0, :3].tolist() == [0, 0, 0]
        assert (image[1:] > 900).all()


@pytest.mark.parametrize("distance", [0.5, 1.5])
def test_noise_grows_with_distance_and_drops_pixels(distance: float) -> None:
    model, _ = _scene()
    sensor = DepthCamera(model, _down_camera())
    noise = DepthNoise(base=0.002, growth=0.002, dropout=0.05)
    rng = np.random.default_rng(3)
    depth = np.full((48, 64), distance, dtype=np.float32)
    images = np.stack([sensor.sense(depth, noise, rng) for _ in range(20)])
    seen = images[images > 0] * 1e-3
    assert 1.0 - len(seen) / images.size == pytest.approx(0.05, abs=0.005)
    assert seen.mean() == pytest.approx(distance, abs=2e-4)
    assert seen.std() == pytest.approx(0.002 + 0.002 * distance**2, rel=0.03)


def test_camera_of_the_task_sees_block_and_pusher_and_no_table(task: Task) -> None:
    world = PushWorld(task)
    low, high = np.array(task.cloud.crop.low), np.array(task.cloud.crop.high)
    for seed in range(20):
        world.reset(seed)
        points = world.camera.deproject(world.depth())
        kept = points[((points > low) & (points < high)).all(axis=1)]
        truth = world.truth()
        near_block = np.abs(kept[:, :2] - truth.block_position[:2]).max(axis=1) < 0.06
        near_tool = np.linalg.norm(kept[:, :2] - truth.tool_position[:2], axis=1) < 0.035
        assert len(kept) >= 150
        assert (near_block & ~near_tool).sum() >= 80
        assert near_tool.sum() >= 20
        assert (near_block | near_tool).all()


def test_block_shows_where_it_is(task: Task) -> None:
    world = PushWorld(task, noise=SensorNoise.none())
    world.reset(5)
    points = world.camera.deproject(world.depth())
    truth = world.truth()
    near = np.linalg.norm(points[:, :2] - truth.block_position[:2], axis=1) < 0.03
    heights = points[near][:, 2]
    assert np.median(heights) == pytest.approx(0.06, abs=2e-3)


def test_camera_off_its_stated_pose_shifts_the_image() -> None:
    model, data = _scene()
    sensor = DepthCamera(model, _down_camera())
    straight = sensor.render(data)
    sensor.place(np.array([0.0, 0.0, 0.1]), np.zeros(3))
    assert sensor.render(data)[0, 0] == pytest.approx(straight[0, 0] + 0.1, abs=1e-6)


def test_quaternion_matrix_is_the_rotation_that_ros_means() -> None:
    half = np.sqrt(0.5)
    quarter_turn_about_z = quaternion_matrix([0.0, 0.0, half, half])
    assert quarter_turn_about_z @ [1.0, 0.0, 0.0] == pytest.approx([0.0, 1.0, 0.0])
