"""The commands of ``rl100 calibrate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rl100_contracts.calibration import Board
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import check_output_file, parse_model

app = typer.Typer(no_args_is_help=True, help="Find out where a camera is, and whether it still is.")


class Kind(str, Enum):
    """Kinds of boards."""

    CHARUCO = "charuco"
    APRILTAG_GRID = "apriltag_grid"


class Mount(str, Enum):
    """What the camera is mounted on."""

    FIXED = "fixed"
    TOOL = "tool"


KindOption = Annotated[Kind | None, typer.Option("--kind", help="Kind of the board.")]
ColumnsOption = Annotated[int | None, typer.Option(help="Squares or tags in a row.")]
RowsOption = Annotated[int | None, typer.Option(help="Squares or tags in a column.")]
SquareOption = Annotated[
    float | None, typer.Option("--square", help="Side of a square, or from tag to tag, mm.")
]
MarkerOption = Annotated[float | None, typer.Option("--marker", help="Side of a marker, mm.")]
DictionaryOption = Annotated[str | None, typer.Option(help="OpenCV's name, e.g. DICT_5X5_100.")]


def _board(
    kind: Kind | None,
    columns: int | None,
    rows: int | None,
    square: float | None,
    marker: float | None,
    dictionary: str | None,
) -> Board | None:
    """The board that the options describe; None: no option was given."""
    given = {
        "kind": kind.value if kind else None,
        "columns": columns,
        "rows": rows,
        "square_m": square / 1e3 if square is not None else None,
        "marker_m": marker / 1e3 if marker is not None else None,
        "dictionary": dictionary,
    }
    given = {key: value for key, value in given.items() if value is not None}
    return parse_model(Board, given, "the board") if given else None


@app.command()
def board(
    out: Annotated[Path, typer.Argument(help="File to write: .pdf or .png.")],
    kind: KindOption = None,
    columns: ColumnsOption = None,
    rows: RowsOption = None,
    square: SquareOption = None,
    marker: MarkerOption = None,
    dictionary: DictionaryOption = None,
) -> None:
    """Write a board to print, in its true size (default: ChArUco 7x5 on A4)."""
    from rl100.calibrate.boards import write_board

    print(write_board(_board(kind, columns, rows, square, marker, dictionary) or Board(), out))


@app.command()
def camera(
    out: Annotated[Path, typer.Option(help="Calibration file to write, .yaml.")],
    task: Annotated[str, typer.Option(help="Task: it says where the tool is.")] = "",
    image: Annotated[str, typer.Option(help="Topic of the images.")] = "",
    camera_info: Annotated[str, typer.Option(help="Default: camera_info beside the image.")] = "",
    mount: Annotated[
        Mount | None, typer.Option(help="fixed: board on the tool; tool: camera on the tool.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the camera.")] = "camera",
    auto: Annotated[
        bool, typer.Option("--auto", help="Take a view whenever the robot stands still.")
    ] = False,
    count: Annotated[
        int, typer.Option("--views", min=6, help="How many views there shall be.")
    ] = 15,
    folder: Annotated[
        Path | None, typer.Option(help="Where the views are kept (default: OUT_views).")
    ] = None,
    recorded: Annotated[
        Path | None,
        typer.Option("--from", help="Recorded views: a folder of them, or a bag."),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Go on with the views that are in the folder.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    kind: KindOption = None,
    columns: ColumnsOption = None,
    rows: RowsOption = None,
    square: SquareOption = None,
    marker: MarkerOption = None,
    dictionary: DictionaryOption = None,
) -> None:
    """Find the pose of a camera from views of a board, and write it to a file."""
    from rl100.calibrate.bags import is_bag
    from rl100.calibrate.camera import from_bag, from_folder, live, report
    from rl100.calibrate.view_taker import Wanted, info_topic

    check_output_file(out, ".yaml", ".yml")
    if out.exists() and not overwrite:
        raise ContractError(f"{out}: is there already; --overwrite replaces it")
    shown = _board(kind, columns, rows, square, marker, dictionary)
    if recorded is not None and not recorded.exists():
        raise ContractError(f"{recorded}: no such folder of views, and no such bag")
    if recorded is not None and not is_bag(recorded):
        found = from_folder(recorded, mount.value if mount else None, shown, print)
        report(found, out, overwrite=overwrite)
        return
    if mount is None:
        raise ContractError(
            "say what the camera is mounted on: --mount fixed (in the room, the board on the "
            "tool) or --mount tool (on the tool, the board in the room)"
        )
    if not task or not image:
        raise ContractError(
            "give --task and --image for live topics or a bag, or --from FOLDER for recorded views"
        )
    from rl100_contracts.task import load_task, task_folder

    wanted = Wanted(
        camera=name,
        mount=mount.value,
        board=shown or Board(),
        image=image,
        camera_info=camera_info or info_topic(image),
        count=count,
        auto=auto or recorded is not None,
        folder=folder or out.with_name(f"{out.stem}_views"),
        add=add,
    )
    contract, place = load_task(task), task_folder(task)
    if recorded is not None:
        found = from_bag(recorded, contract, place, wanted, print)
    else:
        found = live(contract, place, wanted)
    report(found, out, overwrite=overwrite)


@app.command()
def check(
    task: Annotated[str, typer.Option(help="Task: it says where the cameras are.")],
    table: Annotated[
        float | None,
        typer.Option(help="Height of the table in the base frame, mm (default: the task's plane)."),
    ] = None,
    robot: Annotated[
        bool, typer.Option("--robot", help="Compare the robot, by its URDF and joints (Open3D).")
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0.1, help="What is good enough, mm.")] = 5.0,
    picture: Annotated[
        Path | None, typer.Option(help="Draw what is seen against the table to this .png.")
    ] = None,
) -> None:
    """Compare the table (or the robot) that the cameras see now with where it is.

    Exit status 1: it is farther off than the tolerance.
    """
    from rl100.calibrate.check import check_table, sentence
    from rl100.calibrate.check_picture import draw_checks
    from rl100_contracts.task import load_task

    if robot:
        if table is not None or picture is not None:
            raise ContractError("--table and --picture are for the table: leave out --robot")
        _check_robot(task, tolerance / 1e3)
        return
    if picture is not None:
        check_output_file(picture, ".png")
    height_m = table / 1e3 if table is not None else None
    loaded = load_task(task)
    checks = check_table(loaded, height_m)
    for found in checks:
        print(sentence(found, tolerance / 1e3))
    if picture is not None:
        draw_checks(loaded, height_m, checks, picture)
    if any(found.error.largest_m > tolerance / 1e3 for found in checks):
        raise typer.Exit(1)


def _check_robot(task: str, tolerance_m: float) -> None:
    from rl100.calibrate.robot_check import check_robot, sentence
    from rl100_contracts.task import load_task, task_folder

    errors = check_robot(load_task(task), task_folder(task))
    for error in errors:
        print(sentence(error, tolerance_m))
    if any(error.shift_m > tolerance_m for error in errors):
        raise typer.Exit(1)
