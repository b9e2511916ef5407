"""Pins colour images: same lens as the depth camera; a machine without OpenGL is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rl100_sim import rgb

_LOOK = """
from rl100_sim import rgb
assert rgb.choose_backend()
import numpy as np
from rl100_contracts.task import load_task
from rl100_sim.world import PushWorld, SensorNoise
world = PushWorld(load_task("push"), noise=SensorNoise.none())
camera = rgb.ColourCamera(world)
for seed in range(3):
    world.reset(seed)
    image = camera.render().astype(int)
    assert image.shape == (96, 128, 3)
    red = (image[..., 0] > 2 * image[..., 1]) & (image[..., 0] > 2 * image[..., 2])
    points = world.camera.deproject(world.depth())
    v, u = np.nonzero(red & (world.depth() > 0))
    flat = np.flatnonzero(world.depth())
    chosen = points[np.isin(flat, v * 128 + u)]
    block = world.truth().block_position
    inside = np.abs(chosen[:, :2] - block[:2]).max(axis=1) < 0.055
    assert len(chosen) > 60 and inside.mean() > 0.9, (len(chosen), inside.mean())
camera.close()
print("fine")
"""


def test_colour_and_depth_show_the_block_in_the_same_pixels() -> None:
    if rgb.choose_backend() is None:
        pytest.skip("neither EGL nor OSMesa renders on this machine")
    # In a process of its own: MuJoCo chooses its OpenGL once, and other tests chose none.
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "fine" in done.stdout


def test_without_opengl_there_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rgb, "_PROBE", "import os; os.abort()")  # as a broken driver does
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert rgb.choose_backend() is None
    assert "MUJOCO_GL" not in os.environ
