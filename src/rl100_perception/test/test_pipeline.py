"""Geometry of the perception core: points lie where the camera saw them, in the base frame; the
crop box and the depth range are kept; the count is exact and the choice deterministic; a wrong
image size or an empty view is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_perception import sampling
from rl100_perception.cloud import rotation_from_quaternion
from rl100_perception.pipeline import CloudPipeline, NoPointsError
from rl100_perception.sampling import BUCKETS_FROM, farthest_points, sample

INTRINSICS = Intrinsics(width=64, height=48, fx=60.0, fy=58.0, cx=31.0, cy=24.5)


def down_task(num_points: int = 64, **camera: object) -> Task:
    """The push task with a camera 1 m above the base that looks straight down."""
    data = load_task("push").model_dump(mode="json")
    data["observation"]["cloud"]["num_points"] = num_points
    data["camera"] |= {
        "position": [0.1, -0.2, 1.0],
        "quaternion_xyzw": [1.0, 0.0, 0.0, 0.0],  # x right, y back, z down
        "depth_range": [0.2, 1.6],
        "crop_low": [-2.0, -2.0, -1.0],
        "crop_high": [2.0, 2.0, 0.5],
        **camera,
    }
    return Task.model_validate(data)


def image(depth: float) -> np.ndarray:
    return np.full((INTRINSICS.height, INTRINSICS.width), depth, dtype=np.float32)


def test_a_plane_seen_from_above_lies_at_its_height() -> None:
    points = CloudPipeline(down_task()).crop(image(0.9), INTRINSICS)
    assert points.shape == (64 * 48, 3)
    np.testing.assert_allclose(points[:, 2], 0.1, atol=1e-6)
    # The pixel in column 61 sees 30 pixels to the right of the axis; rows grow towards -y.
    corner = points.reshape(48, 64, 3)[0, 61]
    np.testing.assert_allclose(corner, [0.1 + 0.9 * 0.5, -0.2 + 0.9 * 24.5 / 58.0, 0.1], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1),
    st.integers(0, 2**31),
)
def test_points_project_back_to_their_pixel_and_depth(quaternion: list[float], seed: int) -> None:
    quaternion = list(np.asarray(quaternion) / np.linalg.norm(quaternion))
    task = down_task(
        quaternion_xyzw=quaternion, crop_low=[-9.0, -9.0, -9.0], crop_high=[9.0, 9.0, 9.0]
    )
    depth = np.random.default_rng(seed).uniform(0.3, 1.5, (48, 64)).astype(np.float32)
    points = CloudPipeline(task).crop(depth, INTRINSICS).astype(np.float64)
    rotation = rotation_from_quaternion(quaternion)
    optical = (points - task.camera.position) @ rotation
    u = optical[:, 0] / optical[:, 2] * INTRINSICS.fx + INTRINSICS.cx
    v = optical[:, 1] / optical[:, 2] * INTRINSICS.fy + INTRINSICS.cy
    rows, columns = np.mgrid[0:48, 0:64]
    np.testing.assert_allclose(u, columns.ravel(), atol=1e-3)
    np.testing.assert_allclose(v, rows.ravel(), atol=1e-3)
    np.testing.assert_allclose(optical[:, 2], depth.ravel(), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_the_crop_is_the_same_as_cropping_all_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.0, 2.0, (48, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = np.nan
    task = down_task(crop_low=[-0.2, -0.4, -0.3], crop_high=[0.3, 0.1, 0.4])
    got = CloudPipeline(task).crop(depth, INTRINSICS)
    wide = down_task(crop_low=[-9.0, -9.0, -9.0], crop_high=[9.0, 9.0, 9.0])
    points = CloudPipeline(wide).crop(depth, INTRINSICS)
    low, high = np.float32(task.camera.crop_low), np.float32(task.camera.crop_high)
    expected = points[((points >= low) & (points <= high)).all(axis=1)]
    assert 0 < len(expected) < len(points)
    np.testing.assert_array_equal(got, expected)


def test_depths_out_of_range_and_nan_give_no_points() -> None:
    depth = image(0.9)
    depth[0, :4] = [0.0, 0.19, 1.61, np.nan]
    depth[1, 0] = np.inf
    points = CloudPipeline(down_task()).crop(depth, INTRINSICS)
    assert len(points) == 64 * 48 - 5
    assert np.isfinite(points).all()


def test_the_cloud_has_exactly_n_points_of_the_view_and_is_deterministic() -> None:
    depth = np.random.default_rng(1).uniform(0.5, 1.0, (48, 64)).astype(np.float32)
    task = down_task(num_points=100)
    first = CloudPipeline(task).process(depth, INTRINSICS)
    again = CloudPipeline(task).process(depth, INTRINSICS)
    assert first.points.shape == (100, 3) and first.points.dtype == np.float32
    assert not first.repeated and first.sampled_from > 100
    np.testing.assert_array_equal(first.points, again.points)
    everything = {tuple(p) for p in CloudPipeline(task).crop(depth, INTRINSICS).tolist()}
    chosen = {tuple(p) for p in first.points.tolist()}
    assert len(chosen) == 100 and chosen <= everything


def test_too_few_points_are_repeated_and_flagged() -> None:
    depth = np.zeros((48, 64), dtype=np.float32)
    depth[10, 10:15] = 0.8
    result = CloudPipeline(down_task(num_points=12)).process(depth, INTRINSICS)
    assert result.repeated and result.sampled_from == 5
    assert result.points.shape == (12, 3)
    np.testing.assert_array_equal(result.points[5:10], result.points[:5])
    np.testing.assert_array_equal(result.points[10:], result.points[:2])


def test_an_empty_view_is_refused() -> None:
    with pytest.raises(NoPointsError, match="crop box"):
        CloudPipeline(down_task()).process(image(0.0), INTRINSICS)


def test_an_image_of_another_size_than_the_camera_info_is_refused() -> None:
    with pytest.raises(ContractError, match="32x24 pixels but the camera info describes 64x48"):
        CloudPipeline(down_task()).process(np.ones((24, 32), dtype=np.float32), INTRINSICS)


def test_new_intrinsics_replace_the_old_rays() -> None:
    pipeline = CloudPipeline(down_task())
    before = pipeline.crop(image(0.9), INTRINSICS)
    other = Intrinsics(64, 48, 120.0, 116.0, 31.0, 24.5)
    after = pipeline.crop(image(0.9), other)
    np.testing.assert_allclose(after[:, 0] - 0.1, (before[:, 0] - 0.1) / 2, atol=1e-6)


def covering_radius(points: np.ndarray, chosen: np.ndarray) -> float:
    """Largest distance of a point to the nearest chosen one, m."""
    return float(np.linalg.norm(points[:, None] - chosen[None], axis=2).min(axis=1).max())


@settings(max_examples=30, deadline=None)
@given(st.integers(9, 500), st.integers(0, 2**31))
def test_small_clouds_are_sampled_like_the_plain_method(n: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-0.3, 0.3, (n, 3)).astype(np.float32)
    count = min(n - 1, 8 + n // 4)
    np.testing.assert_array_equal(sample(points, count), points[farthest_points(points, count)])


@pytest.mark.parametrize("n", [BUCKETS_FROM, 20_000])
def test_large_clouds_are_covered_by_different_points(n: int) -> None:
    points = np.random.default_rng(5).uniform(-0.3, 0.3, (n, 3)).astype(np.float32)
    got = sample(points, 100)
    np.testing.assert_array_equal(got, sample(points.copy(), 100))
    assert len({tuple(p) for p in got.tolist()}) == 100
    # Farthest-point sampling is at most twice as coarse as any other choice of as many points.
    plain = points[farthest_points(points, 100)]
    assert covering_radius(points, got) <= 2 * covering_radius(points, plain)
    shuffled = sample(points[np.random.default_rng(6).permutation(n)], 100)
    assert covering_radius(points, shuffled) <= 2 * covering_radius(points, plain)


def test_without_fpsample_the_points_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).uniform(size=(500, 3)).astype(np.float32)
    expected = sample(points, 64)
    monkeypatch.setattr(sampling, "fps_sampling", None)
    np.testing.assert_array_equal(sample(points, 64), expected)
