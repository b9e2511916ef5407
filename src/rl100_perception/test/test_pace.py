"""Whether waiting images are made up for.

Pins: a node that is fast for its cameras works off what waits, also after a single slow cloud; one
that needs more than its part of the period takes the newest only, until it is fast again; the
period is that of the camera. And the figures of a run: frames that never came are told by stamps,
refused images are not among them, and the delay is that of the stamps, unless these are from
another clock.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import scenes

from rl100_perception.pace import CLOUDS, Pace

MS = 1_000_000


def test_one_slow_cloud_decides_nothing_many_do() -> None:
    pace = Pace(30.0)
    assert pace.keeps_up
    for _ in range(CLOUDS):
        pace.add(0.005)
    pace.add(0.5)
    assert pace.keeps_up
    for _ in range(CLOUDS // 2 + 1):
        pace.add(0.03)
    assert not pace.keeps_up
    for _ in range(CLOUDS):
        pace.add(0.005)
    assert pace.keeps_up


@pytest.mark.parametrize(("rate_hz", "keeps_up"), [(15.0, True), (90.0, False), (None, True)])
def test_the_period_is_that_of_the_camera(rate_hz: float | None, keeps_up: bool) -> None:
    pace = Pace(rate_hz)
    pace.add(0.02)
    assert pace.keeps_up is keeps_up


def test_figures_of_a_run() -> None:
    pytest.importorskip("rclpy")
    from rl100_perception.health import Health

    rate_hz = scenes.task().streams["depth"].rate_hz
    assert rate_hz is not None
    health, period = Health(scenes.task()), round(1e9 / rate_hz)

    def cloud(stamp_ns: int) -> Any:
        result = SimpleNamespace(repeated=False, sampled_from=7)
        return SimpleNamespace(stamp_ns=stamp_ns, result=result, camera_skew_s=0.0)

    for number in (0, 1, 2, 5, 6, 40):  # two are lost; then the camera was away
        health.saw(10**9 + number * period)
    assert health.lost == 2
    # The clouds of 1 and 2 were refused: that is another figure.
    for number in (0, 5, 6):
        stamp = 10**9 + number * period
        health.count(cloud(stamp), 0.004, stamp + 20 * MS)
    health.count(cloud(10**9), 0.004, 10**18)
    values = health.values()
    assert values["clouds"] == 4 and values["frames lost before perception"] == 2
    assert values["time p99 [ms]"] == "4.00" and values["stamp to cloud p99 [ms]"] == "20.00"
