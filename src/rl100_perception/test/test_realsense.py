"""RealSense cameras, through librealsense's own software device and recordings; no hardware.

Pins: images, stamps, lens and extrinsics are those of the camera; colour is aligned to depth; a
camera that gives nothing is noticed and one that isn't there is a sentence; our back-projection is
that of ``rs.pointcloud`` and of Open3D to 0.1 mm.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soft_camera as soft

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_perception.cloud import optical_rays
from rl100_perception.realsense import RealSense, Settings, find_device, intrinsics_of

rs = soft.rs


def opened(camera: Any, **settings: Any) -> RealSense:
    asked = Settings(soft.WIDTH, soft.HEIGHT, **settings)
    return RealSense(soft.SERIAL, asked, find=lambda _: camera.device)


def test_images_stamps_and_lens_are_the_cameras() -> None:
    camera = soft.SoftCamera(soft.lens(rs.distortion.brown_conrady, (0.1, -0.2, 0.0, 0.0, 0.0)))
    source = opened(camera)
    stamp = camera.send(1, soft.depth_image(1))
    shot = source.wait(5.0)
    assert shot is not None and shot.stamp_ns == stamp and shot.colour is None
    np.testing.assert_array_equal(shot.depth, soft.depth_image(1))
    lens = source.factory.intrinsics
    assert (lens.width, lens.height, lens.distortion_model) == (64, 48, "plumb_bob")
    np.testing.assert_allclose(
        [lens.fx, lens.fy, lens.cx, lens.cy], [60, 59, 31.2, 24.1], rtol=1e-6
    )
    np.testing.assert_allclose(lens.distortion, [0.1, -0.2, 0.0, 0.0, 0.0], rtol=1e-6)
    assert source.factory.depth_units == pytest.approx(0.001)
    assert source.wait(0.05) is None  # nothing more came
    source.close()


def test_only_the_newest_images_are_given() -> None:
    camera = soft.SoftCamera()
    source = opened(camera)
    for number in range(1, 4):
        camera.send(number, soft.depth_image(number))
    # The frames arrive in a thread of librealsense, so wait until the last has.
    shots = [source.wait(1.0)]
    while shots[-1] is not None and shots[-1].stamp_ns < round((1000 + 33 * 3) * 1e6):
        shots.append(source.wait(1.0))
    assert shots[-1] is not None
    np.testing.assert_array_equal(shots[-1].depth, soft.depth_image(3))
    source.close()


def test_colour_is_aligned_to_depth() -> None:
    baseline = 0.05
    camera = soft.SoftCamera(baseline=baseline)
    source = opened(camera, colour=True)
    np.testing.assert_allclose(source.factory.translation, [baseline, 0.0, 0.0])
    np.testing.assert_allclose(source.factory.rotation, np.eye(3))
    # Red is the column of the colour image: at 1 m a shift of 60 * 0.05 = 3 pixels.
    colour = np.zeros((soft.HEIGHT, soft.WIDTH, 3), np.uint8)
    colour[:, :, 0] = np.arange(soft.WIDTH)
    camera.send(1, np.full((soft.HEIGHT, soft.WIDTH), 1000), colour)
    shot = source.wait(5.0)
    assert shot is not None and shot.colour is not None
    np.testing.assert_array_equal(shot.colour[20, 10:50, 0], np.arange(13, 53))
    source.close()


def test_filters_are_librealsenses() -> None:
    camera = soft.SoftCamera()
    source = opened(camera, filters=("spatial",))
    noisy = np.random.default_rng(0).integers(795, 806, (soft.HEIGHT, soft.WIDTH))
    camera.send(1, noisy)
    shot = source.wait(5.0)
    assert shot is not None and shot.depth.shape == (48, 64)
    assert shot.depth.std() < 0.8 * noisy.std()
    source.close()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(640, 480), "has no depth stream of 640x480 at 30 Hz"),
        (Settings(64, 48, 60), "has no depth stream of 64x48 at 60 Hz"),
    ],
)
def test_a_stream_that_the_camera_lacks_is_one_sentence(settings: Settings, sentence: str) -> None:
    camera = soft.SoftCamera()
    with pytest.raises(ContractError, match=sentence):
        RealSense(soft.SERIAL, settings, find=lambda _: camera.device)


def test_a_camera_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no RealSense with the serial number 42 is there"):
        find_device("42")
    with pytest.raises(ContractError, match=r"none\.db3: no such recording"):
        find_device(str(tmp_path / "none.db3"))
    with pytest.raises(ContractError, match="filter 'blur' is unknown: use spatial, temporal"):
        Settings(filters=("blur",))


def test_back_projection_is_that_of_librealsenses_point_cloud() -> None:
    camera = soft.SoftCamera(soft.lens(size=5))
    source = RealSense(soft.SERIAL, Settings(320, 240), find=lambda _: camera.device)
    cloud, points = rs.pointcloud(), []
    arrived = threading.Event()

    original = source._on_frame

    def both(frame: Any) -> None:
        points.append(np.array(cloud.calculate(frame).get_vertices()).view(np.float32).copy())
        original(frame)
        arrived.set()

    camera.depth_sensor.stop()
    camera.depth_sensor.start(both)
    camera.send(1, soft.depth_image(1, 5))
    assert arrived.wait(5.0)
    shot = source.wait(5.0)
    assert shot is not None
    rays = optical_rays(source.factory.intrinsics)
    ours = (rays * (shot.depth.ravel() * 0.001)).T
    theirs = points[0].reshape(-1, 3)
    assert np.abs(ours - theirs).max() <= 1e-4  # m
    source.close()


def test_rays_of_a_distorted_lens_are_librealsenses() -> None:
    # rs.pointcloud passes over this distortion; librealsense's deprojection knows it.
    found = soft.lens(rs.distortion.brown_conrady, (0.12, -0.25, 0.001, -0.002, 0.08), size=5)
    rays = optical_rays(intrinsics_of(found)).reshape(3, 240, 320)
    for row in range(0, 240, 13):
        for column in range(0, 320, 11):
            theirs = rs.rs2_deproject_pixel_to_point(found, [column, row], 1.0)
            assert np.abs(rays[:, row, column] - theirs).max() <= 1e-4  # m at 1 m


def test_back_projection_is_that_of_open3d() -> None:
    o3d = pytest.importorskip("open3d", exc_type=ImportError, reason="make open3d")
    lens = Intrinsics(320, 240, 300.0, 295.0, 156.3, 121.2)
    depth = soft.depth_image(1, 5).astype(np.uint16)
    pinhole = o3d.camera.PinholeCameraIntrinsic(
        lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy
    )
    cloud = o3d.geometry.PointCloud.create_from_depth_image(
        o3d.geometry.Image(depth), pinhole, depth_scale=1000.0, depth_trunc=3.0
    )
    ours = (optical_rays(lens) * (depth.ravel() * 0.001)).T
    assert np.abs(ours - np.asarray(cloud.points)).max() <= 1e-4  # m


def test_unknown_lenses_keep_their_name() -> None:
    found = intrinsics_of(soft.lens(rs.distortion.ftheta, (0.1, 0.0, 0.0, 0.0, 0.0)))
    assert found.distortion_model == "ftheta"
