"""Hand-eye calibration: a closed form to start from, then all corners of all views at once.

Both mounts are one problem. With A the tool in the base frame (a fixed camera sees a board on the
tool) or its inverse (a camera on the tool sees a board in the room), every view says

    A_i Z = X B_i

where B is the board in the optical frame. X is what is asked for: the optical frame in the base
frame (fixed) or in the tool frame (tool). Z is the board in the tool frame, or in the base frame.

The robot's pose has errors too, which move all corners of a view together. The refinement weighs
the reprojection errors by the covariance that both errors give them; how large the robot's are is
estimated from the views themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from rl100_perception.calibration.boards import Corners
from rl100_perception.calibration.lens import Lens

FloatArray = NDArray[np.float64]

# Residuals beyond this many deviations count less and less (soft L1): a bad view must not pull.
ROBUST = 3.0
# Of the robot's errors: as it begins, and within which factor of it the estimate may end.
ROBOT_M, ROBOT_RAD = 5e-4, 5e-4
ROBOT_FACTORS = (0.02, 50.0)
LEAST_PIXEL_ERROR = 0.02
ROUNDS = 4
STEP = 1e-6
SUBSET = 4
TRIALS = 60


@dataclass(frozen=True)
class View:
    """One picture of the board and where the robot was.

    Attributes:
        name: for messages.
        robot: tool frame in the base frame, float64 (4, 4), m.
        corners: of the board in the picture.
    """

    name: str
    robot: FloatArray
    corners: Corners


@dataclass(frozen=True)
class Solution:
    """X and Z (see the module), float64 (4, 4), m, and ``scale``, the factor of the board's size.

    ``scale_deviation`` is the standard deviation of the scale, where it was estimated.
    """

    x: FloatArray
    z: FloatArray
    scale: float = 1.0
    scale_deviation: float = 0.0


def inverse(pose: FloatArray) -> FloatArray:
    """Inverse of a rigid transform (..., 4, 4)."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    made = np.zeros_like(pose)
    made[..., :3, :3] = rotation
    made[..., :3, 3] = -(rotation @ pose[..., :3, 3, None])[..., 0]
    made[..., 3, 3] = 1.0
    return made


def transform(rotation: FloatArray, position: FloatArray) -> FloatArray:
    """Rigid transform (4, 4) of a rotation matrix (3, 3) and a position (3,)."""
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = rotation, position
    return made


def difference(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    """Distance (m) and angle (rad) between two poses (4, 4) of one frame."""
    turned = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
    return float(np.linalg.norm(a[:3, 3] - b[:3, 3])), float(turned)


def arms(views: list[View], mount: str) -> FloatArray:
    """A of each view (see the module), float64 (n, 4, 4)."""
    poses = np.stack([view.robot for view in views])
    return poses if mount == "fixed" else inverse(poses)


def board_pose(corners: Corners, lens: Lens) -> FloatArray:
    """The board in the optical frame from one picture, float64 (4, 4), m."""
    directions = lens.directions(corners.pixels)
    found, turn, position = cv2.solvePnP(
        corners.points, directions, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
    )
    assert found
    turn, position = cv2.solvePnPRefineLM(
        corners.points, directions, np.eye(3), None, turn, position
    )
    rotation = Rotation.from_rotvec(np.asarray(turn, dtype=np.float64).ravel()).as_matrix()
    return transform(rotation, np.asarray(position, dtype=np.float64).ravel())


def _nearest_rotation(matrix: FloatArray) -> FloatArray:
    if np.linalg.det(matrix) < 0:
        matrix = -matrix
    u, _, v = np.linalg.svd(matrix)
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v)


def closed_form(a: FloatArray, b: FloatArray) -> Solution:
    """X and Z of A Z = X B by linear least squares (Shah 2013); rotations first.

    Args:
        a: float64 (n, 4, 4), n >= 3, with rotations about more than one axis.
        b: float64 (n, 4, 4).
    """
    # vec(R_x) = (R_b kron R_a) vec(R_z): the pair of singular vectors of the sum.
    total = sum(np.kron(rb, ra) for ra, rb in zip(a[:, :3, :3], b[:, :3, :3], strict=True))
    u, _, v = np.linalg.svd(total)
    x = _nearest_rotation(u[:, 0].reshape(3, 3, order="F"))
    z = _nearest_rotation(v[0].reshape(3, 3, order="F"))
    # R_a t_z - t_x = R_x t_b - t_a
    rows = np.concatenate([np.concatenate([ra, -np.eye(3)], axis=1) for ra in a[:, :3, :3]])
    right = np.concatenate([x @ tb - ta for ta, tb in zip(a[:, :3, 3], b[:, :3, 3], strict=True)])
    places = np.linalg.lstsq(rows, right, rcond=None)[0]
    return Solution(transform(x, places[3:]), transform(z, places[:3]))


def mismatch(solution: Solution, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of each view: how far the board is seen from where the robot puts it, m (n,) and rad (n,)."""
    expected = inverse(solution.x) @ a @ solution.z
    apart = np.linalg.norm(expected[:, :3, 3] - b[:, :3, 3], axis=1)
    turned = np.swapaxes(expected[:, :3, :3], 1, 2) @ b[:, :3, :3]
    return apart, Rotation.from_matrix(turned).magnitude()


def start_value(a: FloatArray, b: FloatArray) -> Solution:
    """The closed form of the few views that most others agree with (least median of squares)."""
    rng = np.random.default_rng(0)
    best, least = closed_form(a, b), np.inf
    for trial in range(TRIALS):
        chosen = rng.permutation(len(a))[:SUBSET] if trial else np.arange(len(a))
        try:
            solution = closed_form(a[chosen], b[chosen])
        except np.linalg.LinAlgError:
            continue
        apart, turned = mismatch(solution, a, b)
        cost = float(np.median(apart + 0.5 * turned))  # seen from about half a metre
        if cost < least:
            best, least = solution, cost
    return best


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of a corner along each axis, px; of the robot's pose, m and rad."""

    pixel: float
    robot_m: float = ROBOT_M
    robot_rad: float = ROBOT_RAD


class Refinement:
    """Minimises the reprojection errors of all corners over X and Z (and, if asked, the scale).

    Args:
        views: of one board.
        mount: ``fixed`` or ``tool``.
        lens: of the camera.
        noise: as estimated by ``estimate_noise``; None: that is done here.
    """

    def __init__(
        self, views: list[View], mount: str, lens: Lens, noise: Noise | None = None
    ) -> None:
        self._views, self._mount, self._lens = views, mount, lens
        self._a = arms(views, mount)
        counts = [len(view.corners.points) for view in views]
        self._of = np.repeat(np.arange(len(views)), counts)
        self._ends = np.cumsum([0, *counts])
        self._points = np.concatenate([view.corners.points for view in views])
        self._pixels = np.concatenate([view.corners.pixels for view in views])
        self.noise = noise

    def _errors(self, solution: Solution, a: FloatArray) -> FloatArray:
        camera = (inverse(solution.x) @ a @ solution.z)[self._of]
        points = self._points * solution.scale
        seen = np.einsum("nij,nj->ni", camera[:, :3, :3], points) + camera[:, :3, 3]
        seen[:, 2] = np.maximum(seen[:, 2], 1e-3)  # behind the camera while far from the solution
        return self._lens.project(seen) - self._pixels

    def errors(self, solution: Solution) -> FloatArray:
        """Reprojection errors, float64 (corners, 2), px."""
        return self._errors(solution, self._a)

    def by_view(self, solution: Solution) -> FloatArray:
        """Root mean square of the errors of each view, float64 (views,), px."""
        squares = (self.errors(solution) ** 2).sum(axis=1)
        return np.sqrt(np.bincount(self._of, squares) / np.bincount(self._of))

    def _whitening(self, solution: Solution, noise: Noise) -> list[FloatArray]:
        """Of each view: the matrix that makes its errors independent, of unit deviation."""
        here, columns = self.errors(solution), []
        for axis in range(6):
            step = np.zeros(6)
            step[axis] = STEP
            small = _moved(np.eye(4), step)
            # The robot errs about its tool, in whichever direction A goes.
            a = self._a @ small if self._mount == "fixed" else small @ self._a
            deviation = noise.robot_rad if axis < 3 else noise.robot_m
            columns.append((self._errors(solution, a) - here).ravel() / STEP * deviation)
        effects = np.stack(columns, axis=1)
        made = []
        for begin, end in zip(self._ends[:-1] * 2, self._ends[1:] * 2, strict=True):
            effect = effects[begin:end]
            covariance = noise.pixel**2 * np.eye(end - begin) + effect @ effect.T
            made.append(np.linalg.inv(np.linalg.cholesky(covariance)))
        return made

    def _weighed(self, solution: Solution, whitening: list[FloatArray]) -> FloatArray:
        errors = self.errors(solution).ravel()
        parts = zip(self._ends[:-1] * 2, self._ends[1:] * 2, whitening, strict=True)
        return np.concatenate([matrix @ errors[begin:end] for begin, end, matrix in parts])

    def solve(self, start: Solution, *, with_scale: bool = False) -> Solution:
        """The minimum near ``start``; without a noise it is estimated, too."""
        if self.noise is not None:
            return self._minimum(start, self.noise, with_scale)
        alone = np.concatenate([_alone(view, self._lens) for view in self._views])
        # Of the two numbers of each corner, a view's own pose takes six.
        spare = max(1, 2 * len(alone) - 6 * len(self._views))
        squares = float((alone**2).sum())
        noise = Noise(max(LEAST_PIXEL_ERROR, float(np.sqrt(squares / spare))))
        solution, factor = start, 1.0
        for _ in range(ROUNDS):
            solution = self._minimum(solution, noise, with_scale)
            whitening = self._whitening(solution, noise)
            # What is left beyond the errors of the pictures alone is the robot's: of n views, 6 n
            # numbers less the 12 that were fitted. The median keeps bad views from counting.
            excess = [
                float((matrix @ error) @ (matrix @ error)) - own
                for matrix, error, own in zip(
                    whitening,
                    np.split(self.errors(solution).ravel(), self._ends[1:-1] * 2),
                    self._own(noise.pixel),
                    strict=True,
                )
            ]
            expected = max(1.0, 6.0 - 12.0 / len(self._views))
            ratio = max(1e-3, float(np.median(excess)) / expected)
            factor = float(np.clip(factor * np.sqrt(ratio), *ROBOT_FACTORS))
            noise = Noise(noise.pixel, ROBOT_M * factor, ROBOT_RAD * factor)
        self.noise = noise
        return self._minimum(solution, noise, with_scale)

    def _own(self, pixel: float) -> list[float]:
        """Of each view: sum of the squares of its errors by its own pose, in deviations."""
        errors = [_alone(view, self._lens) for view in self._views]
        return [float((error**2).sum()) / pixel**2 for error in errors]

    def _minimum(self, start: Solution, noise: Noise, with_scale: bool) -> Solution:
        whitening = self._whitening(start, noise)

        def moved(step: FloatArray) -> Solution:
            scale = start.scale * float(np.exp(step[12])) if with_scale else start.scale
            return Solution(_moved(start.x, step[:6]), _moved(start.z, step[6:12]), scale)

        found = least_squares(
            lambda step: self._weighed(moved(step), whitening),
            np.zeros(13 if with_scale else 12),
            loss="soft_l1",
            f_scale=ROBUST,
            x_scale="jac",
            max_nfev=100,
        )
        solution = moved(found.x)
        if not with_scale:
            return solution
        covariance = np.linalg.pinv(found.jac.T @ found.jac)
        deviation = solution.scale * float(np.sqrt(max(0.0, covariance[12, 12])))
        return Solution(solution.x, solution.z, solution.scale, deviation)


def _alone(view: View, lens: Lens) -> FloatArray:
    """Reprojection errors (n, 2), px, of a view by the board's pose in its picture alone."""
    pose = board_pose(view.corners, lens)
    return lens.project(view.corners.points @ pose[:3, :3].T + pose[:3, 3]) - view.corners.pixels


def _moved(pose: FloatArray, step: FloatArray) -> FloatArray:
    """A pose turned by the rotation vector step[:3], rad, and shifted by step[3:], m."""
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    return transform(turn @ pose[:3, :3], pose[:3, 3] + step[3:])
