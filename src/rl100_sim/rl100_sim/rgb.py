"""Optional colour images, where the machine can render without a window (EGL or OSMesa).

:func:`choose_backend` must run before anything imports ``mujoco``, which reads its choice of
OpenGL once. So this module imports MuJoCo late, and nothing else of this package at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rl100_sim.world import PushWorld

_PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>');"
    "r = mujoco.Renderer(m, 8, 8); r.update_scene(mujoco.MjData(m)); r.render(); r.close()"
)
UNAVAILABLE = (
    "colour images are not available: neither EGL nor OSMesa can render on this machine; "
    "install libegl1 with a driver, or libosmesa6, or set rgb to false"
)


def choose_backend(timeout_s: float = 30.0) -> str | None:
    """Return the OpenGL backend that works here, having set ``MUJOCO_GL`` to it, or None.

    Each is tried in a process of its own: a broken driver ends the process, not the robot.
    """
    for backend in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
            return backend
    return None


class ColourCamera:
    """Renders what the depth camera's lens sees, in colour."""

    def __init__(self, world: PushWorld) -> None:
        import mujoco

        self._world = world
        camera = world.camera
        self._renderer: Any = mujoco.Renderer(world.model, camera.height, camera.width)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 1
        self._view = _free_camera(world)

    def render(self) -> NDArray[np.uint8]:
        """Image ``(height, width, 3)``, ``uint8`` RGB, of the world as it is."""
        self._renderer.update_scene(self._world.data, self._view, self._options)
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Give the OpenGL context back."""
        self._renderer.close()


def _free_camera(world: PushWorld) -> Any:
    """MuJoCo's camera at the stated pose of the depth camera; sets the field of view, too."""
    import mujoco

    camera = world.camera
    forward = camera.rotation[:, 2]
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    view.distance = 1.0
    view.lookat[:] = camera.position + forward
    view.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
    view.elevation = np.degrees(np.arcsin(forward[2]))
    world.model.vis.global_.fovy = np.degrees(2.0 * np.arctan(camera.height / 2.0 / camera.fy))
    return view
