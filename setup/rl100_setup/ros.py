"""Which ROS 2 the workspace uses: one that is sourced, or the Jazzy wheels (which need a mend)."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .common import Paths, SetupError

WHEELS = "wheels"
TOO_OLD = frozenset({"ardent", "bouncy", "crystal", "dashing", "eloquent", "foxy", "galactic",
                     "humble", "iron"})  # fmt: skip
NEWEST_FOR_WHEELS = (3, 13)
# What a sourced ROS sets; for the wheels these are cleared, so that no other ROS leaks in.
ROS_VARIABLES = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "PYTHONPATH",
                 "LD_LIBRARY_PATH")  # fmt: skip


@dataclass(frozen=True)
class Ros:
    """`name` is `wheels` or the distribution that is sourced; `variables` is what it set."""

    name: str
    variables: dict[str, str]

    @property
    def sourced(self) -> bool:
        return self.name != WHEELS


def detect(root: Path, environ: Mapping[str, str]) -> Ros:
    """The ROS 2 of this shell. The workspace's own environment doesn't count as a sourced one."""
    prefixes = [p for p in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    foreign = [p for p in prefixes if not _inside(Path(p), root)]
    distro = environ.get("ROS_DISTRO", "")
    if not (distro and foreign):
        return Ros(WHEELS, {})
    if distro in TOO_OLD:
        raise SetupError(
            f"the sourced ROS 2 '{distro}' is older than Jazzy; source Jazzy or newer, or use a "
            "shell without ROS and the wheels are taken"
        )
    variables = {name: _without(environ.get(name, ""), root) for name in ROS_VARIABLES}
    variables["AMENT_PREFIX_PATH"] = os.pathsep.join(foreign)
    for name in ("ROS_DISTRO", "ROS_VERSION", "ROS_PYTHON_VERSION"):
        if name in environ:
            variables[name] = environ[name]
    variables["PATH"] = os.pathsep.join(
        p for p in environ.get("PATH", "").split(os.pathsep)
        if any(_inside(Path(p), Path(prefix)) for prefix in foreign)
    )  # fmt: skip
    return Ros(distro, {name: value for name, value in variables.items() if value})


def check_platform(ros: Ros, interpreter: str) -> None:
    """Refuse early, in one sentence, what would fail later in a hundred lines."""
    version = sys.version_info[:2]
    if ros.sourced:
        probe = subprocess.run([interpreter, "-c", "import rclpy"], capture_output=True, text=True)
        if probe.returncode:
            raise SetupError(
                f"ROS 2 {ros.name} is sourced but {interpreter} cannot import rclpy; run with "
                "PYTHON=/usr/bin/python3, or use a shell without ROS and the wheels are taken"
            )
        return
    if version > NEWEST_FOR_WHEELS:
        raise SetupError(
            f"Python {version[0]}.{version[1]} is newer than the workspace was checked with; use "
            "3.10 to 3.13, for example PYTHON=python3.12 make setup"
        )
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise SetupError(
            f"ROS 2 wheels exist for Linux on x86_64 only, and this is {platform.system()} on "
            f"{platform.machine()}; install ROS 2 Jazzy or newer, source it and run this again"
        )


def mend_cmake_exports(paths: Paths, include: str, numpy_include: str) -> int:
    """Point the wheels' CMake exports at this interpreter's headers; returns the files changed.

    The wheels name the include folders of the machine that built them, and CMake stops on a
    folder that doesn't exist.
    """
    foreign_python = re.compile(r"/opt/python/cp[^;\"]*?/include/python3\.\d+")
    foreign_numpy = re.compile(r"/opt/python/cp[^;\"]*?/site-packages/numpy/_core/include")
    changed = 0
    pattern = "share/*/cmake/export_*__rosidl_generator_pyExport.cmake"
    for export in sorted(paths.venv.glob(pattern)):
        old = export.read_text(encoding="utf-8")
        new = foreign_numpy.sub(lambda _: numpy_include, old)
        new = foreign_python.sub(lambda _: include, new)
        if new != old:
            export.write_text(new, encoding="utf-8")
            changed += 1
    return changed


def library_folders(paths: Paths) -> list[Path]:
    """Where the wheels keep shared libraries: the environment's lib and the wheels' own folders."""
    bundled = sorted(paths.venv.glob("lib/python3.*/site-packages/ros_*.libs"))
    return [paths.venv / "lib", *bundled] if bundled else []


def _inside(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _without(value: str, root: Path) -> str:
    return os.pathsep.join(p for p in value.split(os.pathsep) if p and not _inside(Path(p), root))
