"""The ray-cast colour camera: same lens as the depth camera, closed-form shading, determinism.

Pins: block and depth lie in the same pixels; what never moves is cast once and nothing is lost by
casting only some rays; brightness is ambient plus diffuse times the cosine to the light; the image
is a function of seed and time; the goal's mark is seen.
"""

from __future__ import annotations

import mujoco
import numpy as np

from rl100_contracts.task import Task, load_task
from rl100_sim.camera import CameraModel
from rl100_sim.colour import AMBIENT, DIFFUSE, LIGHT, SKY, ColourCamera
from rl100_sim.world import PushWorld, SensorNoise


def test_colour_and_depth_show_the_block_in_the_same_pixels(task: Task) -> None:
    world = PushWorld(task, noise=SensorNoise.none())
    for seed in range(3):
        world.reset(seed)
        image, depth = world.colour().astype(int), world.depth()
        assert image.shape == (96, 128, 3)
        red = (image[..., 0] > 2 * image[..., 1]) & (image[..., 0] > 2 * image[..., 2])
        points = world.camera.deproject(depth)
        chosen = points[red.reshape(-1)[np.flatnonzero(depth)]]
        block = world.truth().block_position
        inside = np.abs(chosen[:, :2] - block[:2]).max(axis=1) < 0.055
        assert len(chosen) > 60 and inside.mean() > 0.95


def test_casting_only_some_rays_changes_no_pixel(task: Task) -> None:
    world = PushWorld(task)
    whole = ColourCamera(world.model, world.camera)
    whole._candidates = lambda data: np.arange(96 * 128)  # type: ignore[method-assign]
    for seed in range(4):
        world.reset(seed)
        for _ in range(5):
            world.step(0.0, 0.0)
        np.testing.assert_array_equal(world.colour(), whole.render(world.data))


def test_shading_is_its_closed_form() -> None:
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
        <geom type="plane" size="9 9 .1" rgba=".5 .25 1 1" pos="0 0 0"/>
        <geom type="box" size=".1 .1 .1" pos="3 0 .1" euler="0 45 0" rgba="1 1 1 1"/>
        </worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    down = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    lens = CameraModel(9, 9, 900.0, 900.0, 4.0, 4.0, np.array([0.0, 0.0, 2.0]), down)
    image = ColourCamera(model, lens).render(data)
    bright = 255.0 * (AMBIENT + DIFFUSE * LIGHT[2])
    assert (image == np.rint(bright * np.array([0.5, 0.25, 1.0])).astype(np.uint8)).all()
    up = np.diag([1.0, -1.0, -1.0]) @ down
    away = CameraModel(9, 9, 900.0, 900.0, 4.0, 4.0, np.array([0.0, 0.0, 2.0]), up)
    assert (ColourCamera(model, away).render(data) == SKY).all()


def test_the_image_depends_on_seed_and_time_alone(task: Task) -> None:
    first, second = PushWorld(task), PushWorld(load_task("push_rgb"))
    first.reset(7)
    first.colour()
    second.reset(3)
    second.colour()
    for world in (first, second):
        world.reset(5)
        for _ in range(3):
            world.step(-0.1, 0.05)
    np.testing.assert_array_equal(first.colour(), second.colour())  # the usual pose is push's


def test_the_mark_of_the_goal_is_seen(task: Task) -> None:
    world = PushWorld(task)
    world.reset(0)
    image = world.colour().astype(int)
    green = (image[..., 1] > 2 * image[..., 0]) & (image[..., 1] > 2 * image[..., 2])
    assert 40 < green.sum() < 400
