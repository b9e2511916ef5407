"""ChArUco boards and grids of AprilTags: drawing them, and finding their corners in an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rl100_contracts.calibration import Board
from rl100_contracts.errors import ContractError

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]

# Fewer corners than this do not give a pose that can be trusted.
LEAST_CORNERS = 8
M_PER_INCH = 0.0254


class NoBoardError(RuntimeError):
    """The board is not in the image; the text says what was found instead."""


@dataclass(frozen=True)
class Corners:
    """Corners of the board in one image.

    Attributes:
        points: float64 (n, 3), m, in the board's frame: origin at its upper left corner, x along
            the columns, y down the rows, z away from whoever looks at it.
        pixels: float64 (n, 2), px; the centre of the first pixel is (0, 0).
    """

    points: FloatArray
    pixels: FloatArray


class BoardDetector:
    """Finds one board in images.

    Raises:
        ContractError: the dictionary is unknown, or has fewer markers than the board.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        number = getattr(cv2.aruco, board.dictionary, None)
        if not isinstance(number, int):
            names = ", ".join(n for n in dir(cv2.aruco) if n.startswith("DICT_"))
            raise ContractError(f"board: dictionary '{board.dictionary}' is not one of {names}")
        dictionary = cv2.aruco.getPredefinedDictionary(number)
        size = (board.columns, board.rows)
        self.markers = board.columns * board.rows
        if board.kind == "charuco":
            self.markers //= 2
        known = len(dictionary.bytesList)
        if self.markers > known:
            raise ContractError(
                f"board: {board.columns}x{board.rows} needs {self.markers} markers, "
                f"{board.dictionary} has {known}: use a larger dictionary"
            )
        parameters = cv2.aruco.DetectorParameters()
        self._offset = 0.0
        self._board: cv2.aruco.Board
        self._charuco: cv2.aruco.CharucoDetector | None = None
        if board.kind == "charuco":
            charuco = cv2.aruco.CharucoBoard(size, board.square_m, board.marker_m, dictionary)
            self._board = charuco
            self._charuco = cv2.aruco.CharucoDetector(charuco, detectorParams=parameters)
        else:
            gap = board.square_m - board.marker_m
            self._board = cv2.aruco.GridBoard(size, board.marker_m, gap, dictionary)
            # Lines are fitted to the edges. The other ways find the corners of a blurred tag about
            # 0.3 px too far inside.
            parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_APRILTAG
            self._offset = 0.5  # there (0, 0) is the first pixel's corner, not its centre
        self._markers = cv2.aruco.ArucoDetector(dictionary, parameters)

    def draw(self, pixels_per_m: float) -> ImageArray:
        """The pattern without a margin, uint8 (H, W), black on white."""
        width, height = (round(length * pixels_per_m) for length in self.board.size_m)
        return np.asarray(self._board.generateImage((width, height), marginSize=0, borderBits=1))

    def find(self, image: ImageArray) -> Corners:
        """Corners of the board in a grey image, uint8 (H, W).

        Raises:
            NoBoardError: the board, or enough of it for a pose, is not in the image.
        """
        corners: Any
        if self._charuco is not None:
            corners, ids, _, marker_ids = self._charuco.detectBoard(image)
        else:
            corners, ids, _ = self._markers.detectMarkers(image)
            marker_ids = ids
        seen = [] if marker_ids is None else [int(i) for i in np.ravel(marker_ids)]
        if not seen:
            raise NoBoardError(f"no marker of {self.board.dictionary} is in the image")
        if others := [i for i in seen if i >= self.markers]:
            raise NoBoardError(
                f"marker {max(others)} is in the image, but a board of "
                f"{self.board.columns}x{self.board.rows} has 0 to {self.markers - 1}: this is "
                "another board than the one that was given"
            )
        points, pixels = np.empty((0, 3)), np.empty((0, 2))
        if ids is not None and len(ids):
            found = self._board.matchImagePoints(corners, ids)
            if found[0] is not None:
                points = np.asarray(found[0], dtype=np.float64).reshape(-1, 3)
                pixels = np.asarray(found[1], dtype=np.float64).reshape(-1, 2) - self._offset
        if len(points) < LEAST_CORNERS or np.linalg.matrix_rank(points - points[0], 1e-6) < 2:
            raise NoBoardError(
                f"only {len(points)} corners of the board were found, and a pose needs "
                f"{LEAST_CORNERS}: more of the board must be in the image, sharp and well lit, "
                "and columns and rows as given"
            )
        return Corners(points, pixels)


def page(detector: BoardDetector, dpi: int, margin_m: float = 0.01) -> ImageArray:
    """A page to print, uint8 (H, W): the pattern, a white margin, and what it is below it."""
    board = detector.board
    scale = dpi / M_PER_INCH
    pattern = detector.draw(scale)
    margin = round(margin_m * scale)
    made = cv2.copyMakeBorder(pattern, *(margin,) * 4, cv2.BORDER_CONSTANT, value=255)
    made = cv2.copyMakeBorder(made, 0, margin, 0, 0, cv2.BORDER_CONSTANT, value=255)
    text = (
        f"{board.kind} {board.columns}x{board.rows}, {board.dictionary}, "
        f"square {board.square_m * 1000:g} mm, marker {board.marker_m * 1000:g} mm"
    )
    height = 0.003 * scale  # of capital letters
    font = cv2.FONT_HERSHEY_SIMPLEX
    thick = max(1, round(height / 12))
    unit = cv2.getTextSize(text, font, 1.0, thick)[0]
    size = min(height / unit[1], pattern.shape[1] / unit[0])
    cv2.putText(made, text, (margin, made.shape[0] - margin), font, size, 0, thick, cv2.LINE_AA)
    return np.asarray(made)
