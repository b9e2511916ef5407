"""What a depth camera beside the table sees, by ray casting: no graphics library is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_perception.sampling import sample

FloatArray = NDArray[np.float32]

# In the world frame, m: x to the robot's right, y away from it, z up from the table top.
CROP_LOW = (-0.45, 0.36, -0.08)
CROP_HIGH = (0.45, 0.96, 0.40)
CAMERA = (0.75, 0.25, 0.85)
LOOKS_AT = (0.0, 0.66, 0.10)
FIELD_OF_VIEW = np.deg2rad(46.0)  # vertical
WIDTH, HEIGHT = 112, 84
#: MuJoCo's groups of what is seen; the collision shapes are in group 4.
SEEN_GROUPS = (1, 1, 0, 0, 0, 0)
UNSEEN = 5
FAR_M = 3.0
#: What is looked through: the table (an object in a hole is seen), what lies outside the crop box,
#: and the arm, whose meshes take most of the time and tell nothing that the hand doesn't.
TABLE_MATERIAL = "table_wood"
SKIPPED = ("world", "tablelink", "RetainingWall", "controller_box", "pedestal_feet", "torso",
           "pedestal", "right_arm_base_link", "head", "screen", "right_l0", "right_l1", "right_l2",
           "right_l3", "right_l4", "right_l5")  # fmt: skip


def _rays() -> NDArray[np.float64]:
    """Unit directions, (n, 3), world frame, of the pixels that look into the crop box."""
    forward = np.subtract(LOOKS_AT, CAMERA)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    half = np.tan(FIELD_OF_VIEW / 2.0)
    rows = half * (1.0 - (2.0 * np.arange(HEIGHT) + 1.0) / HEIGHT)
    columns = half * ((2.0 * np.arange(WIDTH) + 1.0) - WIDTH) / HEIGHT
    rays = forward + rows[:, None, None] * up + columns[None, :, None] * right
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).reshape(-1, 3)
    bounds = np.stack([np.subtract(CROP_LOW, CAMERA), np.subtract(CROP_HIGH, CAMERA)])
    crossings = np.sort(bounds[:, None, :] / rays, axis=0)  # with each pair of faces
    # Pixels whose ray passes through the box.
    return np.ascontiguousarray(rays[crossings[0].max(axis=-1) < crossings[1].min(axis=-1)])


class CloudCamera:
    """Point clouds of a world, cropped to the workspace on the table.

    Args:
        mujoco: the module.
        model: of the world. What isn't to be seen is put into a group of its own, which changes
            nothing in the physics.
        num_points: N, points in a cloud.
    """

    def __init__(self, mujoco: Any, model: Any, num_points: int) -> None:
        self._mujoco, self._model, self._num_points = mujoco, model, num_points
        bodies = [i for i in range(model.nbody) if model.body(i).name in SKIPPED]
        materials = [i for i in range(model.nmat) if model.mat(i).name == TABLE_MATERIAL]
        unseen = np.isin(model.geom_bodyid, bodies) | np.isin(model.geom_matid, materials)
        model.geom_group[unseen] = UNSEEN
        self._rays = _rays()
        self._groups = np.array(SEEN_GROUPS, dtype=np.uint8)
        self._hits = np.zeros(len(self._rays), dtype=np.int32)
        self._distances = np.zeros(len(self._rays))

    def visible(self, data: Any) -> FloatArray:
        """All points that the camera sees within the crop box, float32 (n, 3), m; n may be 0."""
        self._mujoco.mj_multiRay(
            self._model,
            data,
            np.asarray(CAMERA),
            self._rays.reshape(-1),
            self._groups,
            1,  # fixed bodies too
            -1,  # no body is left out
            self._hits,
            self._distances,
            len(self._rays),
            FAR_M,
        )
        seen = self._hits >= 0
        points = CAMERA + self._rays[seen] * self._distances[seen, None]
        inside = ((points > CROP_LOW) & (points < CROP_HIGH)).all(axis=1)
        return points[inside].astype(np.float32)

    def take(self, data: Any) -> FloatArray:
        """The cloud of the present state, float32 (N, 3), m: the farthest points of each other."""
        points = self.visible(data)
        if not len(points):
            return np.zeros((self._num_points, 3), dtype=np.float32)
        return sample(points, self._num_points)
