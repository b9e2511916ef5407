"""``rl100 calibrate board``: a page with a board in its true size."""

from __future__ import annotations

from pathlib import Path

from rl100_contracts.calibration import Board
from rl100_contracts.loading import check_output_file

DPI = 600
PAGES_M = {"A4": (0.210, 0.297), "A3": (0.297, 0.420), "Letter": (0.2159, 0.2794)}


def write_board(board: Board, out: Path) -> str:
    """Write a page (.pdf or .png, 600 dpi); returns a sentence on what was written.

    Raises:
        ContractError: another kind of file, or a place where no file can be written.
    """
    from PIL import Image

    from rl100_perception.calibration.boards import M_PER_INCH, BoardDetector, page

    check_output_file(out, ".pdf", ".png")
    drawn = page(BoardDetector(board), DPI)
    height, width = (pixels / DPI * M_PER_INCH for pixels in drawn.shape)
    # Pillow keeps a byte for a pixel; a plotting library would take a gigabyte for such a page.
    options = {"dpi": (DPI, DPI)} if out.suffix == ".png" else {"resolution": DPI}
    Image.fromarray(drawn).save(out, **options)
    sizes = sorted((width, height))
    fitting = [n for n, s in PAGES_M.items() if sizes[0] <= s[0] and sizes[1] <= s[1]]
    fits = f"fits {fitting[0]}" if fitting else "larger than A3"
    return (
        f"{out}: {width * 1e3:.0f} x {height * 1e3:.0f} mm ({fits}); print at 100 %, on something "
        f"flat and stiff, and measure: a square must be {board.square_m * 1e3:g} mm"
    )
