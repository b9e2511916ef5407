"""The command ``rl100 view``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import check_output_file

DEFAULT_PICTURE = Path("view.png")


def view(
    episode: Annotated[
        Path | None, typer.Argument(help="A recorded episode (default: the live cameras).")
    ] = None,
    task: Annotated[
        str, typer.Option(help="Task (default: the episode's, where it is built in).")
    ] = "",
    at: Annotated[
        float | None, typer.Option(min=0.0, help="Picture of an episode: s after its first cloud.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Picture to write, .png (default: a window where there is a display and Open3D, "
            "else view.png)."
        ),
    ] = None,
) -> None:
    """Draw what the cameras give the policy: cloud, crop box and cameras, in the base frame."""
    from rl100.clouds import live_looks, recorded_looks
    from rl100.view.picture import draw
    from rl100.view.scene import scene_of
    from rl100.view.window import has_display, has_open3d, show_until_closed
    from rl100_contracts.episode import load_episode_info
    from rl100_contracts.task import load_task

    window = out is None and at is None and has_display(os.environ) and has_open3d()
    out = out or DEFAULT_PICTURE
    if not window:
        check_output_file(out, ".png")
    if episode is None:
        if not task:
            raise ContractError("give --task for the live cameras, or the folder of an episode")
        loaded, looks = load_task(task), None
    else:
        loaded = load_task(task or load_episode_info(episode).task)
        looks = recorded_looks(episode, loaded)
    if window:
        show_until_closed(loaded, looks)
        return
    if looks is None:
        (look,) = live_looks(loaded, 1)
    else:
        start = looks[0].made.stamp_ns
        wanted = start + round((at or 0.0) * 1e9)
        look = min(looks, key=lambda one: abs(one.made.stamp_ns - wanted))
        last = (looks[-1].made.stamp_ns - start) / 1e9
        if at is not None and at > last + 0.5:
            raise ContractError(f"{episode}: has clouds of {last:.1f} s only: give a smaller --at")
    scene = scene_of(loaded, look)
    draw(scene, out)
    print(f"{out}: {scene.title}")
