"""The window of ``rl100 view``, drawn without a display (Open3D's off-screen renderer).

Pins: cloud, crop box and cameras are in the picture, and follow when the scene changes; an episode
plays in the order of its stamps, over and over; without a display no window is tried.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from rl100.view.scene import TYPICAL, Scene, box_edges, frustum
from rl100.view.window import Window, has_display, has_open3d, play
from rl100_contracts.errors import ContractError
from rl100_contracts.observation_spec import CropBox
from rl100_perception.cloud import Pose

RED = np.array([1.0, 0.0, 0.0])


def scene(count: int, height: float = 0.1, *, red: bool = True) -> Scene:
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.2, -0.2, 0.0], [0.2, 0.2, height], (count, 3)).astype(np.float32)
    colours = np.full((count, 3), (255, 0, 0), np.uint8) if red else None
    pose = Pose.of([0.4, 0.0, 0.5], [0.653281, 0.653281, -0.270598, -0.270598])
    box = box_edges(CropBox(low=[-0.3, -0.3, 0.0], high=[0.3, 0.3, 0.2]))
    grey = points + np.float32(0.004)
    return Scene("test", grey, points, colours, box, {"front": frustum(pose, TYPICAL)})


def pixels(picture: np.ndarray, colour: np.ndarray, tolerance: float = 0.1) -> int:
    return int((np.abs(picture - colour).max(axis=2) < tolerance).sum())


@pytest.mark.skipif(not has_open3d(), reason="needs the Open3D extra (make open3d)")
def test_the_scene_is_drawn_and_follows() -> None:
    try:
        opened = Window("test", visible=False)
    except ContractError:
        pytest.skip("this machine cannot draw off the screen")
    with opened as window:
        window.show(scene(400))
        assert window.handle()
        first = window.picture()
        assert pixels(first, np.ones(3)) > 0.7 * first.shape[0] * first.shape[1]  # background
        many = pixels(first, RED)
        assert many > 1000
        assert pixels(first, np.full(3, 0.6)) > 300  # points of the crop box
        assert pixels(first, np.array([0.1, 0.1, 0.1])) > 300  # its edges
        assert pixels(first, np.array([0.84, 0.15, 0.16]), 0.05) > 50  # the camera
        window.show(scene(60))
        window.handle()
        few = pixels(window.picture(), RED)
        assert 0 < few < many / 3
        window.show(scene(60, red=False))  # by height
        window.handle()
        assert pixels(window.picture(), RED, 0.05) < few / 3


def test_an_episode_is_played_over_and_over() -> None:
    looks = [SimpleNamespace(made=SimpleNamespace(stamp_ns=n * 10_000_000)) for n in range(4)]
    shown = (look for look in play(looks) if look is not None)  # type: ignore[arg-type]
    order = [looks.index(look) for look in itertools.islice(shown, 9)]  # type: ignore[arg-type]
    assert order == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_no_window_without_a_display() -> None:
    assert not has_display({}) and not has_display({"DISPLAY": ""})
    assert has_display({"DISPLAY": ":0"}) and has_display({"WAYLAND_DISPLAY": "wayland-0"})
