"""From views of a board to a calibrated camera, or to one sentence on why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rl100_contracts.calibration import Residuals
from rl100_contracts.errors import ContractError
from rl100_perception.calibration.hand_eye import (
    Noise,
    Refinement,
    Solution,
    View,
    arms,
    board_pose,
    difference,
    mismatch,
    start_value,
)
from rl100_perception.calibration.lens import Lens

FloatArray = NDArray[np.float64]

LEAST_VIEWS = 6
ENOUGH_VIEWS = 12
# Root mean square of the robot's rotations about the axes that it turns most and second most
# about, rad: below, the camera's place along an axis cannot be told from the board's.
LEAST_TURN = np.radians(8.0)
LEAST_SECOND_TURN = np.radians(4.0)
# A view is an outlier when its reprojection error is this many times the median, and this large.
OUTLIER_RATIO = 3.0
OUTLIER_PX = 0.5
MOST_REJECTED = 0.34
# Beyond these the views contradict each other.
WORST_M = 0.01
WORST_RAD = np.radians(2.0)
# A board whose size is off by more than this, beyond doubt, was given with a wrong size.
SCALE_OFF = 0.01
DEVIATIONS = 5.0


@dataclass(frozen=True)
class Calibration:
    """What came out.

    Attributes:
        pose: optical frame in the base frame (mount fixed) or in the tool frame, (4, 4), m.
        board: board in the tool frame (mount fixed) or in the base frame, (4, 4), m.
        used: names of the views that it is made of.
        rejected: names of the views that were left out as outliers.
        residuals: how well the views agree.
    """

    pose: FloatArray
    board: FloatArray
    used: list[str]
    rejected: list[str]
    residuals: Residuals


def turns(views: list[View]) -> FloatArray:
    """Root mean squares of the robot's rotations about its three main axes, rad, largest first."""
    rotations = Rotation.from_matrix(np.stack([view.robot[:3, :3] for view in views]))
    vectors = (rotations.mean().inv() * rotations).as_rotvec()
    return np.asarray(np.linalg.svd(vectors, compute_uv=False) / np.sqrt(len(views)))


def check_motions(views: list[View]) -> None:
    """Refuse views from which no camera pose follows.

    Raises:
        ContractError: too few views, or rotations that are too small or about one axis only.
    """
    if len(views) < LEAST_VIEWS:
        raise ContractError(
            f"{len(views)} views of the board are too few: take at least {LEAST_VIEWS}, better "
            f"{ENOUGH_VIEWS} or more, with the tool turned differently in each"
        )
    largest, second = turns(views)[:2]
    if largest < LEAST_TURN:
        raise ContractError(
            "the tool hardly turned between the views "
            f"({np.degrees(largest):.1f}° about its main axis): turn it by 20° to 40° to all sides"
        )
    if second < LEAST_SECOND_TURN:
        raise ContractError(
            "the tool turned about one axis only, which leaves the camera's place along that axis "
            "open: add views with the tool tilted about another axis by 20° to 40°"
        )


def calibrate(views: list[View], mount: str, lens: Lens) -> Calibration:
    """Pose of the camera from views of one board.

    Args:
        views: at least ``LEAST_VIEWS``.
        mount: ``fixed``: the board is on the tool; ``tool``: the camera is.
        lens: of the camera.

    Raises:
        ContractError: the motions are too poor, the board has another size, or the views
            contradict each other.
    """
    check_motions(views)
    boards = np.stack([board_pose(view.corners, lens) for view in views])
    start = start_value(arms(views, mount), boards)
    kept = np.ones(len(views), dtype=bool)
    while True:
        chosen = [view for view, keep in zip(views, kept, strict=True) if keep]
        refinement = Refinement(chosen, mount, lens)
        solution = refinement.solve(start)
        errors = Refinement(views, mount, lens).by_view(solution)
        limit = max(OUTLIER_PX, OUTLIER_RATIO * float(np.median(errors[kept])))
        good = kept & (errors <= limit)
        if good.sum() == kept.sum() or good.sum() < LEAST_VIEWS:
            break
        kept, start = good, solution
    rejected = [view.name for view, keep in zip(views, kept, strict=True) if not keep]
    _check_scale(chosen, mount, lens, solution, boards[kept])
    apart, turned = mismatch(solution, arms(chosen, mount), boards[kept])
    far, tilted = (float(np.sqrt(np.mean(values**2))) for values in (apart, turned))
    if far > WORST_M or tilted > WORST_RAD or len(rejected) > MOST_REJECTED * len(views):
        _contradiction(views, mount, lens, boards, rejected, far, tilted)
    check_motions(chosen)
    squares = Refinement(chosen, mount, lens).by_view(solution) ** 2
    counts = [len(view.corners.points) for view in chosen]
    spread = _spread(chosen, mount, lens, solution, refinement.noise)
    residuals = Residuals(
        translation_mm=far * 1e3,
        rotation_deg=float(np.degrees(tilted)),
        reprojection_px=float(np.sqrt(np.average(squares, weights=counts))),
        spread_translation_mm=spread[0] * 1e3,
        spread_rotation_deg=float(np.degrees(spread[1])),
    )
    names = [view.name for view in chosen]
    return Calibration(solution.x, solution.z, names, rejected, residuals)


def _spread(
    views: list[View], mount: str, lens: Lens, solution: Solution, noise: Noise | None
) -> tuple[float, float]:
    """Largest change of the camera's pose when one view is left out, m and rad."""
    changes = [
        difference(
            Refinement(views[:i] + views[i + 1 :], mount, lens, noise).solve(solution).x,
            solution.x,
        )
        for i in range(len(views))
    ]
    return max(apart for apart, _ in changes), max(turned for _, turned in changes)


def _check_scale(
    views: list[View], mount: str, lens: Lens, solution: Solution, boards: FloatArray
) -> None:
    found = Refinement(views, mount, lens).solve(solution, with_scale=True)
    off = abs(found.scale - 1.0)
    scaled = boards.copy()
    scaled[:, :3, 3] *= found.scale
    apart, _ = mismatch(found, arms(views, mount), scaled)
    fits = float(np.sqrt(np.mean(apart**2))) < WORST_M
    if fits and off > SCALE_OFF and off > DEVIATIONS * found.scale_deviation:
        raise ContractError(
            f"by the robot's motion the board is {found.scale:.3f} times as large as was given: "
            "measure a square of the print and give its true size (--square, --marker), and check "
            "that the robot's poses are in metres"
        )


def _contradiction(
    views: list[View],
    mount: str,
    lens: Lens,
    boards: FloatArray,
    rejected: list[str],
    far: float,
    tilted: float,
) -> None:
    other = "tool" if mount == "fixed" else "fixed"
    start = start_value(arms(views, other), boards)
    solution = Refinement(views, other, lens).solve(start)
    apart, _ = mismatch(solution, arms(views, other), boards)
    if np.median(apart) < far / 3 and np.median(apart) < WORST_M:
        raise ContractError(
            f"the views contradict '--mount {mount}' but fit '--mount {other}': "
            "fixed is a camera in the room and a board on the tool, tool the other way round"
        )
    out = f", {len(rejected)} of {len(views)} views fit no others" if rejected else ""
    raise ContractError(
        f"the views contradict each other ({far * 1e3:.1f} mm, {np.degrees(tilted):.1f}° between "
        f"where the board is seen and where the robot puts it{out}): the board or the camera must "
        "not slip, and the robot's pose must be that of the frame to which it is fixed"
    )
