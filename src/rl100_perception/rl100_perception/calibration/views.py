"""Recorded views on disk: pictures, and one file that says where the robot was in each.

A folder of views can be calibrated again at any time: ``rl100 calibrate camera --from FOLDER``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial.transform import Rotation

from rl100_contracts.calibration import Board, LensIntrinsics
from rl100_contracts.errors import ContractError
from rl100_contracts.fields import Name, Quaternion, Vector3
from rl100_contracts.loading import StrictModel, load_yaml_model, write_text_atomic
from rl100_contracts.pixels import decode_pixels
from rl100_contracts.pose import rotation_of
from rl100_perception.calibration.hand_eye import transform

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]
VIEWS_FILE = "views.yaml"

# Encodings that are grey already; infrared cameras use both names.
GREY = ("mono8", "8UC1")


class StoredView(StrictModel):
    """One picture, and the tool in the base frame when it was taken."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    position: Vector3
    quaternion_xyzw: Quaternion

    def robot(self) -> FloatArray:
        """Tool frame in the base frame, (4, 4), m."""
        return transform(rotation_of(self.quaternion_xyzw).as_matrix(), np.array(self.position))


class ViewsFile(StrictModel):
    """What ``views.yaml`` holds; each view's picture is ``NAME.png`` beside it."""

    format_version: Literal[1] = 1
    camera: Name
    frame: str = Field(min_length=1)
    mount: Literal["fixed", "tool"]
    base_frame: str = Field(min_length=1)
    tool_frame: str = Field(min_length=1)
    board: Board
    intrinsics: LensIntrinsics
    views: list[StoredView] = Field(default_factory=list)


class ViewsFolder:
    """Writes views, one after the other; whatever was written stays usable.

    Args:
        path: of the folder; made when it is missing.
        header: everything but the views.
        add: go on with the views that are there.

    Raises:
        ContractError: the folder has views already, and ``add`` is not set or they are of another
            camera, board or mount.
    """

    def __init__(self, path: Path, header: ViewsFile, *, add: bool = False) -> None:
        self._path, self._file = path, header
        if not (path / VIEWS_FILE).exists():
            return
        if not add:
            raise ContractError(
                f"{path}: holds views already: add to them (--add), calibrate from them (--from), "
                "or give another folder (--folder)"
            )
        self._file = load_views(path)
        for key, value in header.model_dump(exclude={"views"}).items():
            if self._file.model_dump()[key] != value:
                raise ContractError(
                    f"{path}: its views have another {key} than there is now, so that none can be "
                    "added: give another folder (--folder)"
                )

    def stored(self) -> Iterator[tuple[StoredView, ImageArray]]:
        """The views that there are, with their pictures; raises ContractError."""
        for view in self._file.views:
            yield view, load_picture(self._path, view)

    def add(self, image: ImageArray, robot: FloatArray) -> StoredView:
        """Store a grey image, uint8 (H, W), and the tool's pose (4, 4); returns what was stored."""
        view = StoredView(
            name=f"view_{len(self._file.views):02d}",
            position=[float(v) for v in robot[:3, 3]],
            quaternion_xyzw=[float(v) for v in Rotation.from_matrix(robot[:3, :3]).as_quat()],
        )
        self._path.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(self._path / f"{view.name}.png"), image):
            raise ContractError(f"{self._path}: pictures cannot be written there")
        self._file = self._file.model_copy(update={"views": [*self._file.views, view]})
        data = self._file.model_dump(mode="json")
        write_text_atomic(self._path / VIEWS_FILE, str(yaml.safe_dump(data, sort_keys=False)))
        return view


def load_views(path: Path) -> ViewsFile:
    """What a folder of views holds; raises ContractError, one sentence."""
    return load_yaml_model(ViewsFile, path / VIEWS_FILE)


def load_picture(path: Path, view: StoredView) -> ImageArray:
    """The picture of a view, grey, uint8 (H, W); raises ContractError when it is missing."""
    file = path / f"{view.name}.png"
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ContractError(f"{file}: is missing or no picture")
    return np.asarray(image, dtype=np.uint8)


def grey_image(message: Any) -> ImageArray:
    """An Image or CompressedImage as grey levels, uint8 (H, W).

    Raises:
        ContractError: another encoding, too few bytes, or no image at all.
    """
    if getattr(message, "encoding", "") not in GREY:
        return np.asarray(cv2.cvtColor(decode_pixels(message), cv2.COLOR_RGB2GRAY), np.uint8)
    height, width, step = int(message.height), int(message.width), int(message.step)
    raw = np.frombuffer(message.data, dtype=np.uint8)
    if not height or step < width or raw.size < height * step:
        raise ContractError(f"a {width}x{height} image has only {raw.size} bytes of data")
    return np.ascontiguousarray(raw[: height * step].reshape(height, step)[:, :width])
