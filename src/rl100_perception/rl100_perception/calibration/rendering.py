"""Pictures of a board as a camera would take them: the oracle of the tests of calibration.

Every pixel of the picture is traced back through the lens to the plane of the board, so nothing
here shares code with what finds the board but the pattern itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rl100_perception.calibration.boards import BoardDetector
from rl100_perception.calibration.hand_eye import inverse, transform
from rl100_perception.calibration.lens import Lens

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]

PIXELS_PER_M = 6000.0
MARGIN_M = 0.01
WHITE, BLACK, BACKGROUND = 210.0, 30.0, 90.0


class BoardRenderer:
    """Takes pictures of one board through one lens.

    Args:
        detector: of the board.
        lens: of the camera.
        samples: rays per pixel along each axis.
        blur_px: standard deviation of the blur of the optics.
        noise: standard deviation of the noise, in grey levels.
    """

    def __init__(
        self,
        detector: BoardDetector,
        lens: Lens,
        *,
        samples: int = 3,
        blur_px: float = 0.7,
        noise: float = 2.0,
    ) -> None:
        self._blur, self._noise, self._samples = blur_px, noise, samples
        self._shape = lens.intrinsics.height, lens.intrinsics.width
        margin = round(MARGIN_M * PIXELS_PER_M)
        pattern = detector.draw(PIXELS_PER_M)
        page = cv2.copyMakeBorder(pattern, *(margin,) * 4, cv2.BORDER_CONSTANT, value=255)
        self._page = (BLACK + page.astype(np.float32) / 255.0 * (WHITE - BLACK)).astype(np.float32)
        self._margin = margin
        # The pattern has a whole number of pixels; this many to the metre, then.
        self._scale = np.array([pattern.shape[1], pattern.shape[0]]) / detector.board.size_m
        height, width = self._shape
        v, u = np.mgrid[0 : height * samples, 0 : width * samples].astype(np.float64)
        pixels = np.stack([u.ravel(), v.ravel()], axis=1)
        directions = lens.directions((pixels + 0.5) / samples - 0.5)
        self._rays = np.concatenate([directions, np.ones((len(directions), 1))], axis=1)

    def take(self, board: FloatArray, rng: np.random.Generator) -> ImageArray:
        """A grey image, uint8 (H, W), of the board at a pose.

        Args:
            board: frame of the board in the optical frame, (4, 4), m.
            rng: of the noise.
        """
        # In the board's frame: where each ray starts, and where it meets the plane z = 0.
        rotation, position = board[:3, :3], board[:3, 3]
        start, rays = -rotation.T @ position, self._rays @ rotation
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -start[2] / rays[:, 2]
            x, y = (start[i] + distance * rays[:, i] for i in (0, 1))
        # A board is seen from its front, which its z axis points away from.
        hidden = (distance <= 0) | ~np.isfinite(distance) | (rays[:, 2] <= 0)
        map_x = np.where(hidden, -1e4, x * self._scale[0] + self._margin - 0.5)
        map_y = np.where(hidden, -1e4, y * self._scale[1] + self._margin - 0.5)
        height, width = self._shape
        shape = height * self._samples, width * self._samples
        fine = cv2.remap(
            self._page,
            np.clip(map_x, -1e4, 1e4).astype(np.float32).reshape(shape),
            np.clip(map_y, -1e4, 1e4).astype(np.float32).reshape(shape),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=BACKGROUND,
        )
        image = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
        if self._blur:
            image = cv2.GaussianBlur(image, (0, 0), self._blur)
        image = image + rng.normal(0.0, self._noise, image.shape)
        return np.asarray(np.clip(np.round(image), 0, 255), dtype=np.uint8)


class Rig:
    """A robot that shows a board to a camera, with everything known.

    Args:
        detector: of the board.
        lens: of the camera.
        mount: ``fixed`` (board on the tool) or ``tool`` (camera on the tool).
        rng: of the rig's poses, of its motions and of the noise.
        robot_noise_m, robot_noise_rad: standard deviations of the robot's measured pose.

    Attributes:
        x: the camera, as it is to be found, (4, 4), m; see ``hand_eye``.
        z: the board, (4, 4), m.
    """

    def __init__(
        self,
        detector: BoardDetector,
        lens: Lens,
        mount: str,
        rng: np.random.Generator,
        *,
        robot_noise_m: float = 0.0,
        robot_noise_rad: float = 0.0,
    ) -> None:
        self._renderer = BoardRenderer(detector, lens, samples=2)
        self._size, self._mount, self._rng = detector.board.size_m, mount, rng
        self._noise = robot_noise_m, robot_noise_rad
        self.x = transform(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1, 3))
        z = Rotation.random(random_state=rng).as_matrix()
        self.z = transform(z, rng.uniform(-0.2, 0.2, 3))

    def motion(self, tilt: tuple[float, float, float] = (0.6, 0.6, 0.6)) -> FloatArray:
        """Tool in the base frame, (4, 4), for a random view of the whole board.

        Args:
            tilt: largest rotations about the axes of the board, rad.
        """
        turn = Rotation.from_rotvec(self._rng.uniform(-1, 1, 3) * tilt).as_matrix()
        centre = np.array([*(0.5 * length for length in self._size), 0.0])
        place = np.array([*self._rng.uniform(-0.04, 0.04, 2), self._rng.uniform(0.38, 0.5)])
        seen = transform(turn, place - turn @ centre)
        arm = self.x @ seen @ inverse(self.z)
        return arm if self._mount == "fixed" else inverse(arm)

    def picture(self, tool: FloatArray) -> ImageArray:
        """What the camera sees, grey, uint8 (H, W), with the tool at a pose (4, 4)."""
        arm = tool if self._mount == "fixed" else inverse(tool)
        return self._renderer.take(inverse(self.x) @ arm @ self.z, self._rng)

    def measured(self, tool: FloatArray) -> FloatArray:
        """The tool's pose (4, 4) as the robot measures it."""
        turn = Rotation.from_rotvec(self._rng.normal(0, 1, 3) * self._noise[1]).as_matrix()
        shift = self._rng.normal(0, 1, 3) * self._noise[0]
        return transform(turn @ tool[:3, :3], tool[:3, 3] + shift)
