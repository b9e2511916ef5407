"""``rl100 calibrate camera``: views from live topics or from a folder, and the file they give."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from rl100.calibrate.bags import bag_messages
from rl100.calibrate.sources import Source, ToolPose
from rl100.calibrate.view_taker import COMPRESSED, Kind, ViewTaker, Wanted
from rl100_contracts.calibration import (
    Board,
    CameraCalibration,
    save_calibration,
    utc_now,
)
from rl100_contracts.decode import message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_node.terminal import KeyReader, RawTerminal, StatusLine
from rl100_perception.calibration.boards import BoardDetector, NoBoardError
from rl100_perception.calibration.capture import PoseHistory
from rl100_perception.calibration.hand_eye import View
from rl100_perception.calibration.lens import Lens
from rl100_perception.calibration.solve import ENOUGH_VIEWS, Calibration, calibrate
from rl100_perception.calibration.views import (
    ViewsFile,
    load_picture,
    load_views,
)

Say = Callable[[str], None]
METHODS = {
    "fixed": "eye-to-hand, joint refinement of reprojection errors",
    "tool": "eye-in-hand, joint refinement of reprojection errors",
}
KEYS = "space takes a view, q calibrates, Ctrl-C gives up"


@contextmanager
def _keys(auto: bool) -> Iterator[queue.Queue[str]]:
    """Keys that were pressed; none when views are taken by themselves."""
    pressed: queue.Queue[str] = queue.Queue()
    if auto:
        yield pressed
        return
    with RawTerminal("rl100 calibrate camera (without --auto)") as terminal:
        reader = KeyReader(terminal, pressed.put, lambda: pressed.put("q"))
        try:
            yield pressed
        finally:
            reader.close()


def live(task: Task, folder: Path, wanted: Wanted) -> CameraCalibration:
    """Take views from live topics and calibrate.

    Args:
        task: says where the tool is.
        folder: of the task file.
        wanted: what the user asked for.

    Raises:
        ContractError: a topic does not come or cannot be used, or no calibration follows.
    """
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    kind = CompressedImage if wanted.image.endswith(COMPRESSED) else Image
    topics = {"image": (kind, wanted.image), "camera info": (CameraInfo, wanted.camera_info)}
    line = StatusLine()
    with _keys(wanted.auto) as keys, Source(topics, ToolPose(task, folder)) as source:
        source.wait()
        newest = source.newest
        taker = ViewTaker(wanted, task, newest["image"], newest["camera info"])
        told = ""
        while not taker.enough:
            what = "views are taken whenever the robot stands still" if wanted.auto else KEYS
            line.show(f"{len(taker.views)} of {wanted.count} views; {what}")
            source.spin(0.2)
            pressed = ["space"] if wanted.auto else []
            while not keys.empty():
                pressed.append(keys.get())
            if {"q", "enter"} & set(pressed):
                break
            if "space" in pressed:
                text = taker.consider(source.next_image(), source.poses).text
                if text != told:
                    line.say(text)
                told = text
        line.end()
    return _result(taker)


def from_bag(path: Path, task: Task, folder: Path, wanted: Wanted, say: Say) -> CameraCalibration:
    """Take views from a recorded bag, wherever the robot stands still somewhere new.

    Args:
        path: folder of the bag, or of an episode, or a .mcap file.
        task: says where the tool is.
        folder: of the task file.
        wanted: what the user asked for.
        say: told about each view.

    Raises:
        ContractError: the bag cannot be read, lacks a topic, or no calibration follows.
    """
    tool = ToolPose(task, folder)
    poses, waiting = PoseHistory(), deque[Any]()
    image = info = taker = None
    left: dict[str, None] = {}
    for topic, message in bag_messages(path, [wanted.image, wanted.camera_info, tool.topic]):
        if topic == tool.topic:
            poses.add(message_stamp_ns(message), tool.pose(message))
        elif topic == wanted.camera_info:
            info = info or message
        else:
            image = message
            waiting.append(message)
        if taker is None and image is not None and info is not None:
            taker = ViewTaker(wanted, task, image, info)
        while taker and waiting and poses.covers(message_stamp_ns(waiting[0])):
            outcome = taker.consider(waiting.popleft(), poses)
            if outcome.kind is Kind.TAKEN:
                say(outcome.text)
            elif outcome.kind is Kind.NO_BOARD:
                left[outcome.text] = None
            if taker.enough:
                return _result(taker)
    if taker is None:
        missing = wanted.image if image is None else wanted.camera_info
        raise ContractError(f"{path}: there is no message on {missing}")
    if poses.empty:
        raise ContractError(f"{path}: there is no message on {tool.topic}, where the tool is")
    for text in list(left)[:3]:
        say(text)
    return _result(taker)


def _result(taker: ViewTaker) -> CameraCalibration:
    if not taker.views:
        raise ContractError("no view was taken, so there is nothing to calibrate")
    try:
        found = calibrate(taker.views, taker.header.mount, taker.lens)
    except ContractError as error:
        raise ContractError(
            f"{error} (the views are kept in {taker.folder}; --add goes on with them)"
        ) from None
    return _described(taker.header, found)


def from_folder(path: Path, mount: str | None, board: Board | None, say: Say) -> CameraCalibration:
    """Calibrate from a folder of views.

    Args:
        path: of the folder.
        mount, board: other ones than the folder says; None: those.
        say: told about each picture without a board.

    Raises:
        ContractError: the folder cannot be used, or no calibration follows.
    """
    changes = {"mount": mount, "board": board}
    stored = load_views(path)
    stored = stored.model_copy(update={k: v for k, v in changes.items() if v is not None})
    detector, lens = BoardDetector(stored.board), Lens(stored.intrinsics)
    views = []
    for view in stored.views:
        try:
            corners = detector.find(load_picture(path, view))
        except NoBoardError as error:
            say(f"{view.name} is left out: {error}")
            continue
        views.append(View(view.name, view.robot(), corners))
    if not views:
        raise ContractError(f"{path}: the board is in none of its {len(stored.views)} pictures")
    return _described(stored, calibrate(views, stored.mount, lens))


def _described(views: ViewsFile, found: Calibration) -> CameraCalibration:
    return CameraCalibration(
        camera=views.camera,
        frame=views.frame,
        mount=views.mount,
        parent_frame=views.base_frame if views.mount == "fixed" else views.tool_frame,
        position=[float(value) for value in found.pose[:3, 3]],
        quaternion_xyzw=[float(v) for v in Rotation.from_matrix(found.pose[:3, :3]).as_quat()],
        date=utc_now(),
        method=METHODS[views.mount],
        board=views.board,
        views=len(found.used),
        rejected=found.rejected,
        residuals=found.residuals,
        intrinsics=views.intrinsics,
    )


def report(calibration: CameraCalibration, out: Path, *, overwrite: bool) -> None:
    """Write the file and print what it says."""
    save_calibration(calibration, out, overwrite=overwrite)
    residuals = calibration.residuals
    place = ", ".join(f"{value:.4f}" for value in calibration.position)
    turn = ", ".join(f"{value:.5f}" for value in calibration.quaternion_xyzw)
    rejected = f", without {', '.join(calibration.rejected)}" if calibration.rejected else ""
    table = Table(title=f"{out}", title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in (
        ("pose", f"{calibration.frame} in {calibration.parent_frame}"),
        ("position [m]", place),
        ("quaternion_xyzw", turn),
        ("views", f"{calibration.views}{rejected}"),
        (
            "board seen / by robot",
            f"{residuals.translation_mm:.2f} mm, {residuals.rotation_deg:.3f}° rms",
        ),
        ("reprojection", f"{residuals.reprojection_px:.2f} px rms"),
        (
            "with one view less",
            f"moves by up to {residuals.spread_translation_mm:.2f} mm, "
            f"{residuals.spread_rotation_deg:.3f}°",
        ),
        ("hash", calibration.hash),
    ):
        table.add_row(key, value)
    Console().print(table)
    if calibration.views < ENOUGH_VIEWS:
        print(f"{calibration.views} views are few: {ENOUGH_VIEWS} or more give a better pose")
