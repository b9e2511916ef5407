"""The colour camera by ray-casting: the colour of what a ray meets, shaded by how it faces a light.

No shadows, reflections or noise; the image is a function of the scene and nothing else.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_sim.camera import MOVING_GROUP, PAINTED_GROUP, STATIC_GROUP, CameraModel, RayCamera

FloatArray = NDArray[np.float64]
ColourImage = NDArray[np.uint8]

AMBIENT, DIFFUSE = 0.4, 0.6
LIGHT = np.array([0.4, 0.3, 1.0]) / np.linalg.norm([0.4, 0.3, 1.0])  # towards it, base frame
SKY = np.array([204, 217, 230], dtype=np.uint8)  # where a ray meets nothing
FARTHEST = 10.0  # m


class ColourCamera(RayCamera):
    """The colour camera. What never moves is cast once per :meth:`place`.

    Raises:
        ContractError: this MuJoCo gives no surface normals.
    """

    def __init__(self, model: mujoco.MjModel, camera: CameraModel) -> None:
        if "normal" not in (mujoco.mj_multiRay.__doc__ or ""):
            raise ContractError(
                f"mujoco {mujoco.__version__} cannot make colour images, because its rays give no "
                "surface normals: install a newer one, or use a task that observes a point cloud"
            )
        self._background: tuple[FloatArray, ColourImage] | None = None
        super().__init__(model, camera)

    def _forget(self) -> None:
        self._background = None

    def _look(
        self, data: mujoco.MjData, directions: FloatArray, *groups: int
    ) -> tuple[FloatArray, ColourImage]:
        """Distance (n,), m, inf where there is nothing, and colour (n, 3) along each ray (n, 3)."""
        count = len(directions)
        wanted = np.zeros((6, 1), dtype=np.uint8)
        wanted[list(groups)] = 1
        geom = np.empty((count, 1), dtype=np.int32)
        distance = np.empty((count, 1))
        normal = np.zeros((3 * count, 1))
        mujoco.mj_multiRay(
            self._model,
            data,
            self._origin.reshape(3, 1),
            directions.reshape(-1, 1),
            wanted,
            1,
            -1,
            geom,
            distance,
            normal,
            count,
            FARTHEST,
        )
        met = geom[:, 0] >= 0
        facing = np.maximum(normal.reshape(count, 3) @ LIGHT, 0.0)
        brightness = 255.0 * (AMBIENT + DIFFUSE * facing)
        colours = self._model.geom_rgba[geom[:, 0], :3] * brightness[:, None]
        shaded = np.rint(colours).clip(0.0, 255.0).astype(np.uint8)
        return np.where(met, distance[:, 0], np.inf), np.where(met[:, None], shaded, SKY)

    def render(self, data: mujoco.MjData) -> ColourImage:
        """Image ``(height, width, 3)``, ``uint8`` RGB."""
        if self._background is None:
            self._background = self._look(data, self._unit, STATIC_GROUP, PAINTED_GROUP)
        behind, still = self._background
        image = still.copy()
        index = self._candidates(data)
        if len(index):
            rays = np.ascontiguousarray(self._unit[index])
            distance, colours = self._look(data, rays, MOVING_GROUP)
            nearer = distance < behind[index]
            image[index[nearer]] = colours[nearer]
        return image.reshape(self._camera.height, self._camera.width, 3)
