"""The environment of the nodes, the same for ``rl100 up`` and for the launch files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rl100.system_parts import NodeSpec
from rl100_contracts.errors import ContractError

#: Jazzy's Fast DDS reads the first name, newer ones the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
PROFILE = Path("dds") / "fastdds_local.xml"


def prefixes(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Install prefixes of the sourced workspaces, nearest first."""
    text = (os.environ if environment is None else environment).get("AMENT_PREFIX_PATH", "")
    return [Path(entry) for entry in text.split(os.pathsep) if entry]


def share_file(relative: Path) -> Path | None:
    """A file of this package's share folder, or of the source tree, or None."""
    folders = [prefix / "share" / "rl100" for prefix in prefixes()]
    here = Path(__file__).resolve()
    # The source tree; then <prefix>/lib/pythonX.Y/site-packages/rl100 of an installed package.
    folders += [here.parent.parent, *(p / "share" / "rl100" for p in here.parents[4:5])]
    return next((f / relative for f in folders if (f / relative).is_file()), None)


def common_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for every node that the user has not set: the DDS profile.

    Without it large messages (depth images, clouds) do not fit in Fast DDS's shared memory.
    """
    env = os.environ if environment is None else environment
    if any(env.get(name) for name in PROFILE_VARIABLES):
        chosen = next(env[name] for name in PROFILE_VARIABLES if env.get(name))
        return {name: chosen for name in PROFILE_VARIABLES if not env.get(name)}
    profile = share_file(PROFILE)
    return {} if profile is None else {name: str(profile) for name in PROFILE_VARIABLES}


def node_environment(
    spec: NodeSpec, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables that one node gets beyond those of the system; the user's own win."""
    env = os.environ if environment is None else environment
    return {key: value for key, value in spec.environment.items() if not env.get(key)}


def find_executable(spec: NodeSpec) -> Path:
    """Path of a node's executable in the sourced workspaces.

    Raises:
        ContractError: it is not there; the sentence says how to get it.
    """
    for prefix in prefixes():
        path = prefix / "lib" / spec.package / spec.executable
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise ContractError(
        f"the executable '{spec.executable}' of package {spec.package} is not in "
        "AMENT_PREFIX_PATH: build the workspace (make setup, or colcon build) and start through "
        "./rl100 or after sourcing install/setup.bash"
    )
