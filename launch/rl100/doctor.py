"""``rl100 doctor``: what was found on this machine, and what to do about what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Status(str, Enum):
    """What a check came to. Only MISSING makes the command fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    MISSING = "missing"


COLOURS = {
    Status.OK: "green",
    Status.NOTE: "cyan",
    Status.WARNING: "yellow",
    Status.MISSING: "bold red",
}


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was looked at, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""


Check = Callable[[], list[Finding]]


def check_python() -> list[Finding]:
    """The interpreter and the operating system."""
    found = f"{platform.python_version()} on {platform.platform()}"
    return [Finding("python", Status.OK, found)]


def check_terminal() -> list[Finding]:
    """Whether keys can be read."""
    if sys.stdin is not None and sys.stdin.isatty():
        return [Finding("terminal", Status.OK, os.environ.get("TERM", "unknown"))]
    return [
        Finding(
            "terminal",
            Status.NOTE,
            "standard input is no terminal",
            "keyboard teleoperation and reward keys need one",
        )
    ]


def has_module(name: str) -> bool:
    """Whether a Python module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def guarded(check: Check) -> list[Finding]:
    """The findings of a check; one that fails itself becomes a finding, so that all are shown."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [Finding(name, Status.WARNING, f"could not be checked: {error}")]


def all_findings() -> list[Finding]:
    """Run every check."""
    from rl100 import doctor_machine as machine
    from rl100 import doctor_ros as ros

    checks: list[Check] = [
        check_python,
        ros.check_ros,
        ros.check_rmw,
        ros.check_workspace,
        ros.check_profile,
        ros.check_discovery,
        machine.check_onnxruntime,
        machine.check_torch,
        machine.check_cameras,
        machine.check_real_time,
        machine.check_disc,
        machine.check_shared_memory,
        check_terminal,
    ]
    return [finding for check in checks for finding in guarded(check)]


def is_well(findings: list[Finding]) -> bool:
    """Whether everything that is needed is there."""
    return all(finding.status is not Status.MISSING for finding in findings)


def run_doctor(*, as_json: bool = False) -> int:
    """Print what was found; exit status 0 when everything that is needed is there, else 1."""
    findings = all_findings()
    well = is_well(findings)
    if as_json:
        checks = [{**asdict(f), "status": f.status.value} for f in findings]
        print(json.dumps({"ok": well, "checks": checks}, indent=2))
        return 0 if well else 1
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "what to do"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "what")
    for f in findings:
        style = COLOURS[f.status]
        status = f"[{style}]{f.status.value}[/]"
        table.add_row(status, f.name, escape(f.found), escape(f.advice))
    console = Console()
    console.print(table)
    missing = sum(f.status is Status.MISSING for f in findings)
    console.print(
        "everything needed is there" if well else f"missing and needed: {missing} (see above)"
    )
    return 0 if well else 1
