"""What a benchmark is, what a figure is, and the report around them."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rl100.statistics import (
    bootstrap_interval,
    quantile_interval,
    seeds_interval,
    wilson_interval,
)

PACKAGES = (
    "numpy",
    "mujoco",
    "onnxruntime",
    "onnxruntime-openvino",
    "torch",
    "fpsample",
    "open3d-cpu",
    "rosbags",
    "ros-rclpy",
    "ros-fastrtps",
)


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: as in the documentation.
        value: in ``unit``; None: not measured.
        unit: e.g. "s", "1/s", "fraction".
        n: number of samples behind the value.
        low: lower end of the 95 % interval, or the value when there is only one sample.
        high: upper end.
        samples: the value of each training seed, where there are some.
        note: what is in the value, or why there is none.
    """

    name: str
    value: float | None
    unit: str
    n: int
    low: float | None
    high: float | None
    samples: tuple[float, ...] = ()
    note: str = ""


def proportion(name: str, successes: int, trials: int) -> Figure:
    """A fraction of successes with its 95 % Wilson interval."""
    low, high = wilson_interval(successes, trials)
    return Figure(name, successes / trials, "fraction", trials, low, high)


def over_seeds(name: str, successes: Sequence[int], trials: Sequence[int]) -> Figure:
    """A success rate over training seeds (each with its trials), with the seeds' own rates."""
    low, high = seeds_interval(successes, trials)
    rates = tuple(s / n for s, n in zip(successes, trials, strict=True))
    total = sum(trials)
    return Figure(name, sum(successes) / total, "fraction", total, low, high, rates)


def mean(name: str, samples: Sequence[float], unit: str, *, keep: bool = False) -> Figure:
    """The mean of samples with its 95 % bootstrap interval; ``keep``: and the samples."""
    low, high = bootstrap_interval(samples)
    return Figure(
        name,
        float(sum(samples) / len(samples)),
        unit,
        len(samples),
        low,
        high,
        tuple(samples) if keep else (),
    )


def quantile(
    name: str, samples: Sequence[float], fraction: float, unit: str, note: str = ""
) -> Figure:
    """A quantile of samples with its 95 % interval from the order of the samples."""
    value = float(np.quantile(np.asarray(samples, dtype=np.float64), fraction))
    low, high = quantile_interval(samples, fraction)
    return Figure(name, value, unit, len(samples), min(low, value), max(high, value), note=note)


def single(name: str, value: float, unit: str, note: str = "") -> Figure:
    """A value that was measured once, so that nothing is known of its spread."""
    return Figure(name, value, unit, 1, value, value, note=note)


def missing(name: str, unit: str, reason: str) -> Figure:
    """A figure that was not measured, and why."""
    return Figure(name, None, unit, 0, None, None, note=reason)


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Attributes:
        quick: fewer repetitions, or a smaller task.
        task: for benchmarks of several tasks; empty: their default.
        seeds: how many, for benchmarks that learn.
        first_seed: the first of them, so that several machines can share the seeds.
        overrides: of the training configuration, each ``section.key=value``.
        folder: of runs that are kept, so that an interrupted benchmark can go on.
        openvino: virtual environment with onnxruntime-openvino, made when it is missing.
    """

    quick: bool = False
    task: str = ""
    seeds: int = 1
    first_seed: int = 0
    overrides: tuple[str, ...] = ()
    folder: Path = Path("runs/bench")
    openvino: Path | None = None


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


class Load:
    """How busy the machine is with others' work, from its making on."""

    def __init__(self) -> None:
        self._begin = self._spent()
        self._average = psutil.getloadavg()

    @staticmethod
    def _spent() -> tuple[float, float, float]:
        """Seconds: of the clock, of all cores at work, of this process and its ended children."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Linux counts guests in user and nice already.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        own = os.times()
        return time.monotonic(), sum(times) - idle - guests, sum(own[:4])

    def report(self) -> dict[str, Any]:
        """Load averages before and after, and cores that others kept busy on average."""
        wall, busy, own = (a - b for a, b in zip(self._spent(), self._begin, strict=True))
        others = max(busy - own, 0.0) / max(wall, 1e-9)
        return {
            "before": [round(value, 2) for value in self._average],
            "after": [round(value, 2) for value in psutil.getloadavg()],
            "cores_of_others": round(others, 2),
            "wall_s": round(wall, 1),
        }


def report(bench: Bench, options: Options) -> dict[str, Any]:
    """Run a benchmark; everything that its JSON file holds."""
    before, load = machine(), Load()
    figures = bench.run(options)
    return {
        "bench": bench.name,
        "command": shlex.join(["rl100", *sys.argv[1:]]),
        "quick": options.quick,
        "machine": before,
        "load": load.report(),
        "versions": versions(),
        "figures": [asdict(figure) for figure in figures],
    }
