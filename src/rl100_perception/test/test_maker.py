"""Messages in, clouds out, by nothing but their stamps.

Pins: in whatever order the streams arrive, the clouds are those that a bag gives; images pair by
stamp within the allowed skew and never wrongly; a camera on the tool was where the tool was at the
image's stamp; colours are aligned; what cannot be used is refused in one sentence, and the next
good images give clouds again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.task import Task
from rl100_perception.cloud import Pose
from rl100_perception.maker import CloudMaker, Made, Refused
from rl100_perception.tool_poses import NotYet, ToolPoses

MS = 1_000_000
START = 10**9


def made(outcomes: list[Made | Refused]) -> list[Made]:
    return [outcome for outcome in outcomes if isinstance(outcome, Made)]


def reasons(outcomes: list[Made | Refused]) -> list[str]:
    return [outcome.reason for outcome in outcomes if isinstance(outcome, Refused)]


def ready(task: Task, **options: Any) -> CloudMaker:
    maker = CloudMaker(task, **options)
    for stream in ("camera_info", "camera_info_2"):
        if stream in maker.other_streams:
            assert not maker.add(stream, scenes.info())
    return maker


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_of_arrival_gives_the_clouds_of_the_bag(data: st.DataObject) -> None:
    task = scenes.task(second=True, tool=True, max_camera_skew_s=0.02)
    jitter = st.integers(-15, 15)
    queues = {
        "depth": [START + (66 * i + data.draw(jitter)) * MS for i in range(6)],
        "depth_2": [START + (66 * i + data.draw(jitter)) * MS for i in range(6)],
        "tool_pose": [START + (20 * i - 60) * MS for i in range(26)],
    }
    messages = {
        "depth": lambda stamp: scenes.depth(stamp, 1),
        "depth_2": lambda stamp: scenes.depth(stamp, 2),
        "tool_pose": scenes.moving_pose,
    }
    in_order = sorted((stamp, name) for name, stamps in queues.items() for stamp in stamps)
    bag = ready(task, keep=100)
    recorded = {
        cloud.stamp_ns: cloud.result.points
        for stamp, name in in_order
        for cloud in made(bag.add(name, messages[name](stamp)))
    }
    live, latest_only = ready(task, keep=100), data.draw(st.booleans())
    seen = 0
    while any(queues.values()):
        name = data.draw(st.sampled_from([n for n, queue in queues.items() if queue]))
        assert live.take(name, messages[name](queues[name].pop(0))) is None
        if any(queues.values()) and data.draw(st.booleans()):
            continue  # the node was busy: more come before it makes clouds
        for cloud in made(list(live.complete(latest_only=latest_only))):
            np.testing.assert_array_equal(cloud.result.points, recorded[cloud.stamp_ns])
            assert cloud.camera_skew_s <= 0.02
            seen += 1
    assert seen > 0 or not recorded


def test_of_two_cameras_the_images_within_the_skew_make_a_cloud() -> None:
    maker = ready(scenes.task(second=True, max_camera_skew_s=0.01))
    assert not maker.add("depth", scenes.depth(START))
    (cloud,) = made(maker.add("depth_2", scenes.depth(START + 10 * MS)))
    assert cloud.stamp_ns == START and cloud.camera_skew_s == pytest.approx(0.01)
    # The next pair is 11 ms apart: never one cloud, and not the one before either.
    maker.add("depth_2", scenes.depth(START + 55 * MS))
    assert not maker.add("depth", scenes.depth(START + 66 * MS))
    outcomes = maker.add("depth_2", scenes.depth(START + 120 * MS))
    (reason,) = reasons(outcomes)
    assert reason.startswith("no image on /second/depth within observation.cloud.max_camera_skew_s")
    assert not made(outcomes) and maker.images_lost == 1
    (cloud,) = made(maker.add("depth", scenes.depth(START + 121 * MS)))
    assert cloud.camera_skew_s == pytest.approx(0.001)


def test_a_camera_that_was_unplugged_joins_again() -> None:
    maker = ready(scenes.task(second=True), keep=8)
    for i in range(20):
        assert not maker.add("depth", scenes.depth(START + 66 * i * MS))
    assert maker.waiting_for() == "no image on /second/depth yet"
    assert maker.images_lost == 12  # eight wait, in case theirs still comes
    (cloud,) = made(maker.add("depth_2", scenes.depth(START + 66 * 19 * MS)))
    assert cloud.stamp_ns == START + 66 * 19 * MS


def test_a_clock_that_goes_back_begins_anew() -> None:
    maker = ready(scenes.task(second=True))
    maker.add("depth", scenes.depth(START))
    maker.add("depth_2", scenes.depth(1000 * START))  # from another clock
    assert not made(maker.add("depth", scenes.depth(START + 66 * MS)))
    maker.add("depth_2", scenes.depth(START + 132 * MS))
    (cloud,) = made(maker.add("depth", scenes.depth(START + 132 * MS)))
    assert cloud.stamp_ns == START + 132 * MS


def test_of_several_complete_sets_all_or_the_newest_are_made() -> None:
    for latest_only, count in ((True, 1), (False, 3)):
        maker = CloudMaker(scenes.task())
        for i in range(3):
            assert not maker.add("depth", scenes.depth(START + i * MS))
        assert maker.waiting_for() == "no camera info on /camera/depth/camera_info yet"
        assert maker.take("camera_info", scenes.info()) is None and maker.has_images
        clouds = made(list(maker.complete(latest_only=latest_only)))
        assert len(clouds) == count and clouds[-1].stamp_ns == START + 2 * MS
        assert maker.images_lost == 3 - count


def test_the_tool_is_where_it_was_at_the_image() -> None:
    poses = ToolPoses("/tool_pose", 50 * MS, 100)
    for i in range(3):
        poses.add(scenes.moving_pose(START + 40 * i * MS))
    at = poses.at(START + 50 * MS)
    half = 0.25 * 1.05
    wanted = Pose.of([0.2 * 1.05, 0.0, 0.0], [0.0, 0.0, float(np.sin(half)), float(np.cos(half))])
    np.testing.assert_allclose(at.position, wanted.position, atol=1e-9)
    np.testing.assert_allclose(at.rotation, wanted.rotation, atol=1e-9)
    with pytest.raises(NotYet):
        poses.at(START + 81 * MS)


def test_a_missing_tool_pose_is_one_sentence_and_no_cloud() -> None:
    task = scenes.task(tool=True)
    maker = ready(task)
    assert not maker.add("depth", scenes.depth(START))
    assert maker.waiting_for() == "no pose on /tool_pose yet"
    maker.add("tool_pose", scenes.moving_pose(START - 500 * MS))
    assert "older than the image by more than" in maker.waiting_for()
    (reason,) = reasons(maker.add("tool_pose", scenes.moving_pose(START + 10 * MS)))
    assert reason.startswith("no pose on /tool_pose within observation.max_skew_s of the image")
    maker.add("depth", scenes.depth(START + 20 * MS))
    assert len(made(maker.add("tool_pose", scenes.moving_pose(START + 20 * MS)))) == 1
    maker.add("depth", scenes.depth(START + 40 * MS))
    bad = scenes.pose(START + 40 * MS, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    (reason,) = reasons(maker.add("tool_pose", bad))
    assert "/tool_pose: the orientation" in reason and "not a unit quaternion" in reason


def test_colours_are_those_of_the_pixels() -> None:
    maker = ready(scenes.task(colour=True))
    maker.add("depth", scenes.depth(START))
    (cloud,) = made(maker.add("color", scenes.colour(START)))
    result = cloud.result
    assert result.colours is not None
    # Red is the column; x grows with it: x = depth * (column - cx) / fx + 0.1.
    height = 1.0 - result.points[:, 2]
    column = (result.points[:, 0] - 0.1) / height * scenes.INTRINSICS.fx + scenes.INTRINSICS.cx
    np.testing.assert_allclose(result.colours[:, 0], column, atol=0.01)
    maker.add("depth", scenes.depth(START + MS * 50))
    (reason,) = reasons(maker.add("color", scenes.colour(START + MS * 50, width=30)))
    assert "the colour image has 30x24 pixels, the depth image 32x24" in reason


@pytest.mark.parametrize(
    ("model", "distortion", "sentence"),
    [("thin_prism", (0.1,), "distortion model 'thin_prism'"), ("plumb_bob", (0.1,), "4 or 5")],
)
def test_an_unusable_camera_info_is_refused_until_a_good_one_comes(
    model: str, distortion: tuple[float, ...], sentence: str
) -> None:
    maker = CloudMaker(scenes.task())
    (reason,) = reasons(maker.add("camera_info", scenes.info(2, model, distortion)))
    assert reason.startswith("/camera/depth/camera_info: ") and sentence in reason
    assert not maker.add("depth", scenes.depth(START))
    assert maker.waiting_for() == reason
    assert len(made(maker.add("camera_info", scenes.info()))) == 1


def test_a_stream_of_another_type_is_refused_at_the_start() -> None:
    data = scenes.task().model_dump(mode="json")
    data["streams"]["depth"]["type"] = "sensor_msgs/msg/CompressedImage"
    with pytest.raises(ValueError, match=r"'depth' of camera 'table' is a .*needs .*/Image"):
        CloudMaker(Task.model_validate(data))


def test_a_camera_that_gives_points_is_as_good_as_one_that_gives_depth() -> None:
    c, image = scenes.INTRINSICS, scenes.depth(START)
    depth = image.data.view("<u2").reshape(24, 32).astype(np.float64) * 1e-3
    v, u = np.mgrid[0:24, 0:32]
    seen = np.stack([(u - c.cx) / c.fx * depth, (v - c.cy) / c.fy * depth, depth], axis=2)
    xyz = seen.reshape(-1, 3).astype(np.float32)
    xyz = np.concatenate([[[np.nan] * 3, [0.0, 0.0, 9.0]], xyz]).astype(np.float32)
    colours = np.arange(3 * len(xyz)).reshape(-1, 3).astype(np.uint8)
    maker = CloudMaker(scenes.points_task())
    (cloud,) = made(maker.add("camera_points", scenes.points(START, xyz, colours)))
    plain = ready(scenes.task())
    (expected,) = made(plain.add("depth", image))
    assert cloud.result.sampled_from == expected.result.sampled_from == 24 * 32
    np.testing.assert_allclose(cloud.result.cropped.xyz, expected.result.cropped.xyz, atol=1e-6)
    np.testing.assert_array_equal(cloud.result.cropped.colours, colours[2:])
    (reason,) = reasons(maker.add("camera_points", scenes.points(START + MS, xyz[:2], colours[:2])))
    assert reason.startswith("/camera/points: no point lies in the crop box")
