"""What a benchmark is, what a figure is, and the report around them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from rl100.statistics import bootstrap_interval, wilson_interval

PACKAGES = ("numpy", "mujoco", "onnxruntime", "torch", "rosbags", "ros-rclpy", "ros-fastrtps")


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: as in the documentation.
        value: in ``unit``.
        unit: e.g. "s", "1/s", "fraction".
        n: number of samples behind the value.
        low: lower end of the 95 % interval, or the value when there is only one sample.
        high: upper end.
    """

    name: str
    value: float
    unit: str
    n: int
    low: float
    high: float


def proportion(name: str, successes: int, trials: int) -> Figure:
    """A fraction of successes with its 95 % Wilson interval."""
    low, high = wilson_interval(successes, trials)
    return Figure(name, successes / trials, "fraction", trials, low, high)


def mean(name: str, samples: Sequence[float], unit: str) -> Figure:
    """The mean of samples with its 95 % bootstrap interval."""
    low, high = bootstrap_interval(samples)
    return Figure(name, float(sum(samples) / len(samples)), unit, len(samples), low, high)


def single(name: str, value: float, unit: str) -> Figure:
    """A value that was measured once, so that nothing is known of its spread."""
    return Figure(name, value, unit, 1, value, value)


@dataclass(frozen=True)
class Options:
    """How a benchmark is run: ``quick`` asks for fewer repetitions."""

    quick: bool = False


@dataclass(frozen=True)
class Bench:
    """A benchmark: ``run`` measures and raises ContractError when it cannot."""

    name: str
    description: str
    run: Callable[[Options], list[Figure]]


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """The machine that measures, and how busy it was."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": usable,
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "load_average": [round(value, 2) for value in psutil.getloadavg()],
        "os": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide about speed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def report(bench: Bench, options: Options) -> dict[str, Any]:
    """Run a benchmark; everything that its JSON file holds."""
    before = machine()
    figures = bench.run(options)
    return {
        "bench": bench.name,
        "quick": options.quick,
        "machine": before,
        "versions": versions(),
        "figures": [asdict(figure) for figure in figures],
    }
