"""Scenes in a window that can be turned with the mouse. Needs Open3D."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rl100.clouds import Look, follow
from rl100.open3d_extra import import_open3d, open3d_or_none
from rl100.view.scene import Scene, scene_of
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task

GREY = (0.6, 0.6, 0.6)
BOX, CAMERA = (0.1, 0.1, 0.1), (0.84, 0.15, 0.16)
POINT_SIZE = 4.0
AXIS_M = 0.1
LARGEST_PAUSE_S = 1.0


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether these environment variables name a display."""
    return any(environment.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY"))


def has_open3d() -> bool:
    """Whether Open3D can be imported."""
    return open3d_or_none() is not None


class Window:
    """A window with one scene, which may change. Use as a context manager.

    Args:
        title: of the window.
        visible: False: draw without a display.

    Raises:
        ContractError: no window can be opened.
    """

    def __init__(self, title: str, *, visible: bool = True) -> None:
        open3d = import_open3d()
        self._o3d = open3d
        self._window = open3d.visualization.Visualizer()
        if not self._window.create_window(title, width=1200, height=800, visible=visible):
            raise ContractError("no window can be opened here: write a picture with --out view.png")
        self._window.get_render_option().point_size = POINT_SIZE
        geometry = open3d.geometry
        self._clouds = geometry.PointCloud(), geometry.PointCloud()
        self._cameras = geometry.LineSet()
        self._empty = True

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._window.destroy_window()

    def show(self, scene: Scene) -> None:
        """Draw a scene in place of the one before; the view stays as it was turned."""
        vector = self._o3d.utility.Vector3dVector
        cropped, sampled = self._clouds
        cropped.points = vector(_others(scene).astype(np.float64))
        cropped.paint_uniform_color(GREY)
        sampled.points = vector(scene.sampled.astype(np.float64))
        sampled.colors = vector(_colours(scene))
        self._set_lines(self._cameras, np.concatenate(list(scene.cameras.values())), CAMERA)
        if self._empty:
            box = self._o3d.geometry.LineSet()
            self._set_lines(box, scene.box, BOX)
            axes = self._o3d.geometry.TriangleMesh.create_coordinate_frame(AXIS_M)
            for shape in (*self._clouds, self._cameras, box, axes):
                self._window.add_geometry(shape)
            control = self._window.get_view_control()
            control.set_front([0.6, -0.6, 0.6])
            control.set_up([0.0, 0.0, 1.0])
            self._empty = False
        else:
            for shape in (*self._clouds, self._cameras):
                self._window.update_geometry(shape)

    def _set_lines(self, lines: Any, edges: np.ndarray, colour: tuple[float, ...]) -> None:
        utility = self._o3d.utility
        lines.points = utility.Vector3dVector(edges.reshape(-1, 3))
        pairs = np.arange(2 * len(edges)).reshape(-1, 2)
        lines.lines = utility.Vector2iVector(pairs)
        lines.paint_uniform_color(colour)

    def handle(self) -> bool:
        """Handle mouse and keys, and draw; False: the window was closed."""
        going = bool(self._window.poll_events())
        self._window.update_renderer()
        return going

    def picture(self) -> np.ndarray:
        """What is drawn, float64 (H, W, 3), from 0 to 1."""
        return np.asarray(self._window.capture_screen_float_buffer(do_render=True))


def _others(scene: Scene) -> np.ndarray:
    """Points of the crop box that the policy does not get, float32 (n, 3): drawn at the same place,
    two points would hide each other."""
    row = np.dtype((np.void, 12))
    cropped, sampled = (
        np.ascontiguousarray(points, dtype=np.float32).view(row).ravel()
        for points in (scene.cropped, scene.sampled)
    )
    return scene.cropped[~np.isin(cropped, sampled)]


def _colours(scene: Scene) -> np.ndarray:
    """Colour of each sampled point, float64 (N, 3): its own, or by its height."""
    if scene.colours is not None:
        return scene.colours / 255.0
    from matplotlib import colormaps

    heights = scene.sampled[:, 2]
    scale = max(float(np.ptp(heights)), 1e-6)
    return np.asarray(colormaps["viridis"]((heights - heights.min()) / scale)[:, :3])


def play(looks: list[Look]) -> Iterator[Look | None]:
    """The clouds of an episode at the pace of its stamps, over and over; None: wait."""
    while True:
        for before, look in zip([looks[0], *looks], looks, strict=False):
            pause = (look.made.stamp_ns - before.made.stamp_ns) / 1e9
            end = time.monotonic() + min(pause, LARGEST_PAUSE_S)
            while time.monotonic() < end:
                time.sleep(0.005)
                yield None
            yield look


def show_until_closed(task: Task, looks: list[Look] | None, *, visible: bool = True) -> None:
    """Show an episode's clouds, or with None the live ones, until the window is closed.

    Raises:
        ContractError: no live cloud comes.
    """
    source = follow(task) if looks is None else play(looks)
    with Window(f"rl100 view: {task.name}", visible=visible) as window:
        for look in source:
            if look is not None:
                window.show(scene_of(task, look))
            if not window.handle():
                return
