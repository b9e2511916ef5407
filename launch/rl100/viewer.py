"""RViz beside the nodes of a system, where it is installed."""

from __future__ import annotations

from pathlib import Path

from rl100.environment import find_executable, share_file
from rl100.system_parts import NodeSpec, SystemArgument, Value
from rl100_contracts.errors import ContractError

LAYOUT = Path("rviz") / "rl100.rviz"
RVIZ = SystemArgument("rviz", "open RViz, where it is installed", "false", bool)


def viewer(values: dict[str, Value]) -> list[NodeSpec]:
    """RViz with this package's layout, where ``rviz:=true`` asks for it; the rest goes on without.

    Raises:
        ContractError: the layout is not there.
    """
    if not values.get("rviz"):
        return []
    layout = share_file(LAYOUT)
    if layout is None:
        raise ContractError(f"rviz:=true: {LAYOUT} is missing: build the workspace again")
    words = ("-d", str(layout))
    return [NodeSpec("rviz2", "rviz2", "rviz2", environment={}, words=words, own=False)]


def check_viewer(nodes: list[NodeSpec]) -> None:
    """Raise ContractError with one sentence when a viewer is asked for and not installed."""
    for spec in nodes:
        if spec.own:
            continue
        try:
            find_executable(spec)
        except ContractError:
            raise ContractError(
                "rviz:=true: RViz (rviz2) is not in the ROS 2 installation that is used: leave it "
                "out, and look with ./rl100 view or Foxglove"
            ) from None
