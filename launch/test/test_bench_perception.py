"""The benchmark ``perception`` on a small scale.

Pins: its figures are there, and those that need Open3D say why when it is missing; Open3D's steps
find the very points of the core; every frame that is sent through the real node is counted, and
one that gives no cloud counts as dropped; a wrong ``--set`` is one sentence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rl100.bench.frame import Options
from rl100.bench.perception import run as bench
from rl100.bench.perception.core import IMAGES, message_of, ours, with_open3d
from rl100.bench.perception.scene import HEIGHT, WIDTH, bench_task, depth_images
from rl100.open3d_extra import open3d_or_none
from rl100_contracts.decode import Intrinsics
from rl100_contracts.errors import ContractError
from rl100_sim.world import ImageSize, camera_model


def test_the_core_is_timed_on_one_core() -> None:
    found = bench.run_core(3)
    assert len(found["times_ms"]["box"]) == len(found["times_ms"]["table"]) == 3
    assert 1024 < found["points"]["box"] < found["points"]["table"]
    figures = {figure.name: figure for figure in bench.core_figures(found)}
    assert figures["depth_to_cloud_p50_ms"].value is not None
    if found["open3d"] is None:
        assert figures["vs_open3d_ratio"].note == bench.NO_OPEN3D
    else:
        ratio = figures["open3d_cpu_p50_ms"].value / figures["ours_cpu_p50_ms"].value
        assert figures["vs_open3d_ratio"].value == pytest.approx(ratio)
    without = {f.name: f for f in bench.core_figures({**found, "open3d": None})}
    assert without["vs_open3d_ratio"].value is None


def test_open3d_does_the_same_steps() -> None:
    o3d = open3d_or_none()
    if o3d is None:
        pytest.skip("make open3d")
    task = bench_task()
    model = camera_model(task.cameras["table"], ImageSize(width=WIDTH, height=HEIGHT))
    lens = Intrinsics(WIDTH, HEIGHT, model.fx, model.fy, model.cx, model.cy)
    message = message_of(depth_images(task, 1)["table"][0])
    # A point at a side of the box may be rounded into it or out of it.
    assert abs(ours(task, lens)(message) - with_open3d(o3d, task, lens)(message)) <= 3


def test_the_images_are_different() -> None:
    images = depth_images(bench_task(cameras=2), 2)
    assert set(images) == {"table", "far"} and images["far"][0].shape == (HEIGHT, WIDTH)
    assert not np.array_equal(images["table"][0], images["table"][1])
    assert not np.array_equal(images["table"][0], images["far"][0])
    assert IMAGES > 1


@pytest.mark.integration
@pytest.mark.parametrize("cameras", [1, 2])
def test_frames_go_through_the_node(tmp_path: Path, cameras: int) -> None:
    from rl100.bench.perception.live import COUNTS, flow

    done: list[float] = []
    found = flow(bench_task(cameras=cameras, rate_hz=10.0), 10.0, 1.5, tmp_path, done.append)
    assert found.sent == 15 and sum(done) == pytest.approx(1.5)
    assert found.times_ms and len(found.times_ms) + len(found.dropped_s) == found.sent
    assert set(found.counted) == set(COUNTS)
    assert all(0.0 <= at_s < 2.0 for at_s in found.dropped_s)
    assert all(0.0 < ms < 2000.0 for ms in found.times_ms)


def test_a_wrong_number_is_one_sentence() -> None:
    with pytest.raises(ContractError, match="the benchmark perception has no 'second'; it has"):
        bench.run(Options(overrides=("second=3",)))
