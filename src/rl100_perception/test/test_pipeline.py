"""Geometry of the perception core: points lie where the cameras saw them, in the base frame; the
crop box, turned or not, and the depth range are kept; cameras are fused in order; the count is
exact and the choice deterministic; a wrong image size or an empty view is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_perception import sampling, view
from rl100_perception.cloud import Pose, rotation_from_quaternion
from rl100_perception.pipeline import CloudPipeline, CloudResult, NoPointsError
from rl100_perception.sampling import BUCKETS_FROM, farthest_points, sample
from rl100_perception.view import View

INTRINSICS = Intrinsics(width=64, height=48, fx=60.0, fy=58.0, cx=31.0, cy=24.5)


WHOLE = {"low": [-9.0, -9.0, -9.0], "high": [9.0, 9.0, 9.0]}


def down_task(
    num_points: int = 64,
    crop: dict[str, object] | None = None,
    cloud: dict[str, object] | None = None,
    **camera: object,
) -> Task:
    """The push task with a camera 1 m above the base that looks straight down."""
    data = load_task("push").model_dump(mode="json")
    data["observation"]["cloud"] |= {
        "num_points": num_points,
        "crop": crop or {"low": [-2.0, -2.0, -1.0], "high": [2.0, 2.0, 0.5]},
        **(cloud or {}),
    }
    data["cameras"]["table"] |= {
        "position": [0.1, -0.2, 1.0],
        "quaternion_xyzw": [1.0, 0.0, 0.0, 0.0],  # x right, y back, z down
        "depth_range": [0.2, 1.6],
        **camera,
    }
    return Task.model_validate(data)


class One:
    """The pipeline of a task with one camera."""

    def __init__(self, task: Task) -> None:
        self._pipeline = CloudPipeline(task)

    def crop(self, depth: np.ndarray, intrinsics: Intrinsics = INTRINSICS) -> np.ndarray:
        return self._pipeline.crop({"table": View(depth, intrinsics)}).xyz

    def process(self, depth: np.ndarray) -> CloudResult:
        return self._pipeline.process({"table": View(depth, INTRINSICS)})


def image(depth: float) -> np.ndarray:
    return np.full((INTRINSICS.height, INTRINSICS.width), depth, dtype=np.float32)


def test_a_plane_seen_from_above_lies_at_its_height() -> None:
    points = One(down_task()).crop(image(0.9))
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
    task = down_task(quaternion_xyzw=quaternion, crop=WHOLE)
    depth = np.random.default_rng(seed).uniform(0.3, 1.5, (48, 64)).astype(np.float32)
    points = One(task).crop(depth).astype(np.float64)
    rotation = rotation_from_quaternion(quaternion)
    optical = (points - task.cameras["table"].position) @ rotation
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
    task = down_task(crop={"low": [-0.2, -0.4, -0.3], "high": [0.3, 0.1, 0.4]})
    got = One(task).crop(depth)
    wide = down_task(crop=WHOLE)
    points = One(wide).crop(depth)
    low, high = np.float32(task.cloud.crop.low), np.float32(task.cloud.crop.high)
    expected = points[((points >= low) & (points <= high)).all(axis=1)]
    assert 0 < len(expected) < len(points)
    np.testing.assert_array_equal(got, expected)


def test_depths_out_of_range_and_nan_give_no_points() -> None:
    depth = image(0.9)
    depth[0, :4] = [0.0, 0.19, 1.61, np.nan]
    depth[1, 0] = np.inf
    points = One(down_task()).crop(depth)
    assert len(points) == 64 * 48 - 5
    assert np.isfinite(points).all()


def test_the_cloud_has_exactly_n_points_of_the_view_and_is_deterministic() -> None:
    depth = np.random.default_rng(1).uniform(0.5, 1.0, (48, 64)).astype(np.float32)
    task = down_task(num_points=100)
    first = One(task).process(depth)
    again = One(task).process(depth)
    assert first.points.shape == (100, 3) and first.points.dtype == np.float32
    assert not first.repeated and first.sampled_from > 100
    np.testing.assert_array_equal(first.points, again.points)
    everything = {tuple(p) for p in One(task).crop(depth).tolist()}
    chosen = {tuple(p) for p in first.points.tolist()}
    assert len(chosen) == 100 and chosen <= everything


def test_too_few_points_are_repeated_and_flagged() -> None:
    depth = np.zeros((48, 64), dtype=np.float32)
    depth[10, 10:15] = 0.8
    result = One(down_task(num_points=12)).process(depth)
    assert result.repeated and result.sampled_from == 5
    assert result.points.shape == (12, 3)
    np.testing.assert_array_equal(result.points[5:10], result.points[:5])
    np.testing.assert_array_equal(result.points[10:], result.points[:2])


def test_an_empty_view_is_refused() -> None:
    with pytest.raises(NoPointsError, match="crop box"):
        One(down_task()).process(image(0.0))


def test_an_image_of_another_size_than_the_camera_info_is_refused() -> None:
    with pytest.raises(ContractError, match="32x24 pixels but the camera info describes 64x48"):
        One(down_task()).process(np.ones((24, 32), dtype=np.float32))


def test_new_intrinsics_replace_the_old_rays() -> None:
    pipeline = One(down_task())
    before = pipeline.crop(image(0.9))
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


@pytest.mark.parametrize("n", [1, 2, 40, 64])
def test_few_points_come_in_the_order_of_choosing_and_again(n: int) -> None:
    points = np.random.default_rng(7).uniform(-0.3, 0.3, (n, 3)).astype(np.float32)
    order = points[farthest_points(points, n)]
    np.testing.assert_array_equal(sample(points, 64), np.resize(order, (64, 3)))


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


def turned(seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    return {
        "low": [-0.3, -0.2, -0.25],
        "high": [0.2, 0.35, 0.3],
        "position": list(rng.uniform(-0.1, 0.1, 3)),
        "quaternion_xyzw": list(quaternion / np.linalg.norm(quaternion)),
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_a_turned_box_keeps_the_points_inside_it(seed: int) -> None:
    depth = np.random.default_rng(seed).uniform(0.4, 1.5, (48, 64)).astype(np.float32)
    task = down_task(crop=turned(seed))
    everything = One(down_task(crop=WHOLE)).crop(depth)
    crop = task.cloud.crop
    local = (everything - crop.position) @ rotation_from_quaternion(crop.quaternion_xyzw)
    low, high = np.array(crop.low), np.array(crop.high)
    inside = ((local >= low) & (local <= high)).all(axis=1)
    near = (np.minimum(abs(local - low), abs(local - high)) < 1e-5).any(axis=1)
    got = One(task).crop(depth)
    sure = everything[inside & ~near]
    assert abs(len(got) - inside.sum()) <= near.sum()
    # The points are computed in the box's frame and moved back, so they agree to rounding.
    if len(sure):
        assert cKDTree(got).query(sure)[0].max() < 1e-5
    if len(got):
        assert cKDTree(everything).query(got)[0].max() < 1e-5


def test_a_camera_on_the_tool_sees_what_a_fixed_one_at_its_place_sees() -> None:
    depth = np.random.default_rng(4).uniform(0.4, 1.5, (48, 64)).astype(np.float32)
    tool = Pose.of([0.2, 0.1, 0.5], [0.0, 0.6, 0.0, 0.8])
    mounted = Pose.of([0.02, 0.0, 0.05], [1.0, 0.0, 0.0, 0.0])
    both = tool @ mounted
    wrist = down_task(
        mount="tool",
        tool_pose="tool_pose",
        position=[0.02, 0.0, 0.05],
        quaternion_xyzw=[1.0, 0.0, 0.0, 0.0],
    )
    xyzw = Rotation.from_matrix(both.rotation).as_quat()
    still = down_task(position=both.position.tolist(), quaternion_xyzw=xyzw.tolist())
    view = View(depth, INTRINSICS, tool=tool)
    moving = CloudPipeline(wrist).crop({"table": view}).xyz
    np.testing.assert_allclose(moving, One(still).crop(depth), atol=1e-5)
    assert len(moving) > 100


def two_cameras(**cloud: object) -> Task:
    data = down_task(cloud=dict(cloud)).model_dump(mode="json")
    for name, kind in (("depth", "Image"), ("camera_info", "CameraInfo")):
        data["streams"][f"{name}_2"] = {
            "topic": f"/second/{name}",
            "type": f"sensor_msgs/msg/{kind}",
            "role": name,
        }
    data["cameras"]["second"] = {
        **data["cameras"]["table"],
        "depth": "depth_2",
        "camera_info": "camera_info_2",
        "position": [0.5, 0.0, 1.0],
    }
    return Task.model_validate(data)


def test_two_cameras_are_fused_in_their_order() -> None:
    task = two_cameras()
    views = {"second": View(image(0.8), INTRINSICS), "table": View(image(0.9), INTRINSICS)}
    fused = CloudPipeline(task).crop(views).xyz
    first = One(down_task()).crop(image(0.9))
    second = One(down_task(position=[0.5, 0.0, 1.0])).crop(image(0.8))
    np.testing.assert_array_equal(fused, np.concatenate([first, second]))


def test_plane_and_voxels_come_before_the_choice() -> None:
    depth = image(0.9)
    depth[20:28, 30:40] = 0.8  # a block of 10 cm on a table at z = 0.1
    plane = {"point": [0.0, 0.0, 0.1], "clearance": 0.01}
    flat = One(down_task(cloud={"plane": plane})).crop(depth)
    assert len(flat) == 80
    np.testing.assert_allclose(flat[:, 2], 0.2, atol=1e-6)
    coarse = One(down_task(cloud={"plane": plane, "voxel_size": 0.05})).crop(depth)
    assert 0 < len(coarse) < 20
    np.testing.assert_allclose(coarse[:, 2], 0.2, atol=1e-6)
    with pytest.raises(NoPointsError):
        One(down_task(cloud={"plane": plane})).process(image(0.9))


def test_colours_stay_with_their_points() -> None:
    depth = np.random.default_rng(2).uniform(0.5, 1.0, (48, 64)).astype(np.float32)
    # Each pixel's colour tells its depth, and so its point's height.
    tint = np.repeat((depth * 200)[:, :, None], 3, axis=2).astype(np.uint8)
    data = down_task(num_points=100, cloud={"max_candidates": 500}).model_dump(mode="json")
    data["streams"]["color"] = {
        "topic": "/color",
        "type": "sensor_msgs/msg/Image",
        "role": "image",
    }
    data["observation"]["cloud"]["color"] = True
    data["cameras"]["table"]["color"] = "color"
    pipeline = CloudPipeline(Task.model_validate(data))
    result = pipeline.process({"table": View(depth, INTRINSICS, colours=tint)})
    assert result.colours is not None and result.colours.shape == (100, 3)
    np.testing.assert_allclose(result.colours[:, 0], (1.0 - result.points[:, 2]) * 200, atol=1.01)
    assert result.cropped.colours is not None and len(result.cropped.colours) == result.sampled_from


def test_many_points_are_thinned_before_the_choice() -> None:
    depth = np.random.default_rng(3).uniform(0.5, 1.0, (48, 64)).astype(np.float32)
    result = One(down_task(num_points=64, cloud={"max_candidates": 256})).process(depth)
    assert result.sampled_from == 48 * 64 and result.points.shape == (64, 3)
    evenly = result.cropped.xyz[np.arange(256) * (48 * 64) // 256]
    assert {tuple(p) for p in result.points.tolist()} <= {tuple(p) for p in evenly.tolist()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.001, 0.00025, 0.0037]), st.booleans())
def test_whole_numbers_give_the_points_of_metres(seed: int, scale: float, many: bool) -> None:
    # Images of whole numbers are compared with tables in their own units; here both ways must
    # agree to the last bit, also for depths at the sides of the box and of the range.
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, round(1.7 / scale), (48, 64)).astype(np.uint16)
    raw[:8] = rng.choice([0, 1, 65535, round(0.2 / scale), round(1.6 / scale)], (8, 64))
    task = down_task(depth_scale=scale, crop=turned(seed) if seed % 2 else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "FEW", 0 if many else 10**6)
        metres = raw.astype(np.float32) * np.float32(scale)
        pipeline = CloudPipeline(task)
        seen = pipeline.crop({"table": View(raw, INTRINSICS)}).xyz
        np.testing.assert_array_equal(seen, pipeline.crop({"table": View(metres, INTRINSICS)}).xyz)
    plain = CloudPipeline(task).crop({"table": View(metres, INTRINSICS)}).xyz
    np.testing.assert_array_equal(seen, plain)
