"""The benchmark ``perception``: its parts, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from rl100.bench.frame import Bench, Figure, Options, missing, quantile
from rl100.bench.overrides import with_overrides
from rl100.bench.policy.run import Parts, quiet_maths
from rl100.statistics import ratio_interval
from rl100_contracts.errors import ContractError

NO_OPEN3D = "Open3D is not installed: make open3d"


@dataclass(frozen=True)
class Plan:
    """How much is measured; each can be set by ``--set key=value``.

    Attributes:
        rounds: images that the core is timed with.
        seconds: length of each run through the node, s; 0 leaves them out.
    """

    rounds: int = 1000
    seconds: float = 600.0


FULL = Plan()
QUICK = Plan(rounds=150, seconds=8.0)


def core_figures(found: dict[str, Any]) -> list[Figure]:
    """Figures of the core by itself, from what ``core`` printed."""
    times, points = found["times_ms"], found["points"]
    how = "" if found["fpsample"] else "; without fpsample"
    note = f"one core, {points['box']} points in the crop box{how}"
    whole = f"one core, all of the table in the box: {points['table']} points{how}"
    figures = [
        quantile("depth_to_cloud_p50_ms", times["box"], 0.5, "ms", note),
        quantile("depth_to_cloud_p99_ms", times["box"], 0.99, "ms", note),
        quantile("depth_to_cloud_table_p50_ms", times["table"], 0.5, "ms", whole),
    ]
    for scene, suffix in (("box", ""), ("table", "_table")):
        name = f"vs_open3d{suffix}_ratio"
        if found["open3d"] is None:
            figures.append(missing(name, "ratio", NO_OPEN3D))
            continue
        own, other = times[f"cpu_{scene}"], times[f"cpu_{scene}_open3d"]
        value, (low, high) = float(np.median(other) / np.median(own)), ratio_interval(other, own)
        cpu = "medians of processor time, the same images in turns, one core"
        figures.append(Figure(name, value, "ratio", len(own), low, high, note=cpu))
        figures.append(quantile(f"open3d{suffix}_cpu_p50_ms", other, 0.5, "ms", found["open3d"]))
        figures.append(quantile(f"ours{suffix}_cpu_p50_ms", own, 0.5, "ms"))
    return figures


def run_core(rounds: int) -> dict[str, Any]:
    """Time the core in a process of its own, on one core.

    Raises:
        ContractError: it failed.
    """
    command = [sys.executable, "-m", "rl100.bench.perception.core", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ContractError(f"the core cannot be timed: {last}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run(options: Options) -> list[Figure]:
    """Measure; about 25 minutes, ``quick`` less than one.

    Raises:
        ContractError: a wrong ``--set``, or the core or the node fails.
    """
    plan = with_overrides(QUICK if options.quick else FULL, "perception", options.overrides)
    quiet_maths()
    from rl100.bench.perception.live import flow
    from rl100.bench.perception.scene import bench_task

    figures: list[Figure] = []
    with Parts(Console(stderr=True)) as parts:
        with parts.part("core and Open3D", 1):
            figures += core_figures(run_core(plan.rounds))
        for name, cameras, rate in (("30hz", 1, 30.0), ("2x15hz", 2, 15.0)):
            if not plan.seconds:
                figures.append(missing(f"dropped_frames_{name}", "frames", "--set seconds=0"))
                continue
            task = bench_task(cameras=cameras, rate_hz=rate)
            with parts.part(f"node, {cameras} x {rate:g} Hz", plan.seconds) as step:
                found = flow(task, rate, plan.seconds, options.folder / "log", step)
            dropped = float(len(found.dropped_s))
            note = f"of {found.sent} sent over {plan.seconds:g} s through the node and DDS"
            if found.dropped_s:
                own = ", ".join(f"{key} {value}" for key, value in found.counted.items())
                note += (
                    f"; between {min(found.dropped_s):.0f} and {max(found.dropped_s):.0f} s after "
                    f"the first; the node counts from its start: {own or 'nothing'}"
                )
            figures.append(
                Figure(
                    f"dropped_frames_{name}",
                    dropped,
                    "frames",
                    found.sent,
                    dropped,
                    dropped,
                    note=note,
                )
            )
            if found.times_ms:
                wire = "last image sent until its cloud is received"
                for share in (50, 99):
                    figure = f"image_to_cloud_{name}_p{share}_ms"
                    figures.append(quantile(figure, found.times_ms, share / 100, "ms", wire))
    return figures


BENCH = Bench("perception", "depth images to clouds: the core, Open3D, the node at 30 Hz", run)
