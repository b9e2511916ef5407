"""``rl100 load``: have the running policy node run another bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rl100.client import Client
from rl100_contracts.bundle import check_folder
from rl100_contracts.errors import ContractError

# TensorRT builds its engine for minutes.
LOADING_S = 900.0


def load(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE_DIR", help="Directory of the bundle.")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Go back to the bundle that ran before.")
    ] = False,
) -> None:
    """Have the running policy load another bundle; the present one goes on until it is ready."""
    from rl100_msgs.srv import LoadBundle

    if (bundle is None) is not previous:
        raise ContractError("give the directory of a bundle, or --previous to go back")
    path = ""
    if bundle is not None:
        check_folder(bundle)
        path = str(bundle.absolute())  # the policy node may run in another folder
    request = LoadBundle.Request(path=path, previous=previous)
    with Client("the policy node") as client:
        answer = client.call(LoadBundle, "/rl100_policy/load_bundle", request, LOADING_S)
    if not answer.accepted:
        runs = f"{answer.policy_version} goes on" if answer.policy_version else "none is loaded"
        raise ContractError(f"the policy refuses the bundle ({runs}): {answer.message}")
    typer.echo(answer.message)
