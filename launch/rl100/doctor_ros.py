"""Checks of ``rl100 doctor`` on ROS: installation, middleware, workspace, discovery."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

from rl100.doctor import Finding, Status, has_module
from rl100.environment import PROFILE, PROFILE_VARIABLES, find_executable, prefixes, share_file
from rl100.system_parts import NodeSpec
from rl100.systems import SYSTEMS, describe
from rl100_contracts.errors import ContractError

DEFAULT_RMW = "rmw_fastrtps_cpp"
#: Holds a few 640x480 depth images (614 KB); Fast DDS's own default is 512 KB.
SMALLEST_SEGMENT = 8 * 1024 * 1024


def _wheels() -> tuple[str, str] | None:
    """Distribution and rclpy version of a ROS that was installed with pip, or None."""
    for dist in metadata.distributions():
        found = re.fullmatch(r"ros-([a-z]+)-rclpy", (dist.metadata["Name"] or "").lower())
        if found:
            return found[1], dist.version
    return None


def check_ros() -> list[Finding]:
    """Where ROS 2 comes from, and which distribution it is."""
    if not has_module("rclpy"):
        return [
            Finding(
                "ros 2",
                Status.MISSING,
                "rclpy cannot be imported",
                "run make setup and start through ./rl100, or source /opt/ros/<distro>/setup.bash",
            )
        ]
    sourced = os.environ.get("ROS_DISTRO", "")
    wheels = _wheels()
    folder = next((p for p in prefixes() if (p / "share/rclpy/package.xml").is_file()), None)
    if sourced and (folder is None or wheels is None):
        return [Finding("ros 2", Status.OK, f"{sourced}, sourced from {folder}")]
    if wheels is not None:
        return [Finding("ros 2", Status.OK, f"{wheels[0]}, pip wheels (rclpy {wheels[1]})")]
    return [
        Finding(
            "ros 2",
            Status.WARNING,
            "rclpy is there, but ROS_DISTRO is not set",
            "source the setup.bash of your ROS 2",
        )
    ]


def chosen_rmw() -> str:
    """The middleware that nodes will use."""
    return os.environ.get("RMW_IMPLEMENTATION") or DEFAULT_RMW


def check_rmw() -> list[Finding]:
    """Whether the library of the chosen middleware can be found."""
    rmw = chosen_rmw()
    folders = [prefix / "lib" for prefix in prefixes()]
    folders += [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    if any((folder / f"lib{rmw}.so").exists() for folder in folders):
        return [Finding("middleware", Status.OK, rmw)]
    package = f"ros-{os.environ.get('ROS_DISTRO') or 'jazzy'}-{rmw.replace('_', '-')}"
    return [
        Finding(
            "middleware",
            Status.MISSING,
            f"lib{rmw}.so is not on the library path",
            f"start through ./rl100, or install {package}, or unset RMW_IMPLEMENTATION",
        )
    ]


def _every_node() -> list[NodeSpec]:
    answers = {"bundle": "x"}
    nodes = []
    for name, system in SYSTEMS.items():
        needed = {a.name: answers[a.name] for a in system.arguments if a.needed}
        nodes += describe(name, needed)
    for arguments in ({"device": "joy"}, {"device": "scripted", "sim": "true"}):
        nodes += describe("record", arguments)
    return nodes


def check_workspace() -> list[Finding]:
    """Whether every node of every system is built."""
    missing = set()
    programs = {(node.package, node.executable): node for node in _every_node()}
    for (package, executable), node in programs.items():
        try:
            find_executable(node)
        except ContractError:
            missing.add(f"{package}/{executable}")
    if not missing:
        return [Finding("workspace", Status.OK, f"{len(programs)} nodes are built")]
    return [
        Finding(
            "workspace",
            Status.MISSING,
            f"not built, or not sourced: {', '.join(sorted(missing))}",
            "run make setup (or colcon build) and start through ./rl100",
        )
    ]


def _profile_facts(path: Path) -> tuple[int, bool]:
    """Largest shared-memory segment in bytes, and whether UDP is bound to this machine alone."""
    root = ElementTree.parse(path).getroot()

    def texts(name: str) -> list[str]:
        return [e.text or "" for e in root.iter() if e.tag.rpartition("}")[2] == name]

    segments = [int(text) for text in texts("segment_size") if text.strip().isdigit()]
    addresses = [text.strip() for text in texts("address") if text.strip()]
    local = bool(addresses) and all(a.startswith("127.") for a in addresses)
    return max(segments, default=0), local


def set_profile() -> Path | None:
    """The Fast DDS profile that the environment names, or None."""
    return next((Path(os.environ[n]) for n in PROFILE_VARIABLES if os.environ.get(n)), None)


def check_profile() -> list[Finding]:
    """Whether nodes get a Fast DDS profile that large messages pass."""
    if not chosen_rmw().startswith("rmw_fastrtps"):
        advice = "make sure that its settings let messages of 1 MB pass"
        return [Finding("dds profile", Status.NOTE, f"not used by {chosen_rmw()}", advice)]
    path = set_profile()
    if path is None:
        packaged = share_file(PROFILE)
        if packaged is None:
            advice = "build the workspace: without its profile depth images and clouds are lost"
            return [Finding("dds profile", Status.MISSING, "none", advice)]
        return [
            Finding(
                "dds profile",
                Status.WARNING,
                "not set here (rl100 up and the launch files set it)",
                f"for nodes started by hand: export {PROFILE_VARIABLES[0]}={packaged}",
            )
        ]
    if not path.is_file():
        advice = "unset the variable, or give the path of a profile"
        return [Finding("dds profile", Status.MISSING, f"{path} does not exist", advice)]
    try:
        segment, _ = _profile_facts(path)
    except ElementTree.ParseError as error:
        return [Finding("dds profile", Status.MISSING, f"{path}: {error}", "mend the XML")]
    if segment < SMALLEST_SEGMENT:
        return [
            Finding(
                "dds profile",
                Status.WARNING,
                f"{path}: shared-memory segment of {segment} bytes",
                "set segment_size to 64 MiB, or depth images and clouds are lost",
            )
        ]
    return [Finding("dds profile", Status.OK, f"{path} ({segment >> 20} MiB shared memory)")]


def check_discovery() -> list[Finding]:
    """Who can hear the nodes."""
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    scope = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if os.environ.get("ROS_LOCALHOST_ONLY") == "1":
        scope = "LOCALHOST"
    found = f"domain {domain}"
    path = set_profile() or share_file(PROFILE)
    if chosen_rmw().startswith("rmw_fastrtps") and path is not None and path.is_file():
        _, local = _profile_facts(path)
        if local:
            advice = "for several machines: a profile of your own"
            return [Finding("discovery", Status.OK, f"{found}, this machine only", advice)]
    if scope in ("LOCALHOST", "OFF"):
        return [Finding("discovery", Status.OK, f"{found}, {scope}")]
    return [
        Finding(
            "discovery",
            Status.NOTE,
            f"{found}, the whole subnet",
            "anybody on the network can command the robot: keep to a network of its own",
        )
    ]
