"""The benchmark ``policy``: what it reads off the wire; that a tiny run through real processes has
every promised figure (no value is judged); that what is left out says why; that Ctrl-C leaves no
process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from rl100.bench.frame import Options
from rl100.bench.policy.plan import QUICK, Plan, plan_of
from rl100_contracts.errors import ContractError

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")
pytest.importorskip("torch")

from rich.console import Console

from rl100.bench.policy import scenarios, wire
from rl100.bench.policy.bundles import Network, task_of
from rl100.bench.policy.figures import HEADLINES, LEFT_OUT, NOTHING_CAME, Measured, figures_of
from rl100.bench.policy.plot import save_plot
from rl100.bench.policy.run import NO_FULL, Measurement, Parts
from rl100.bench.policy.wire import SeenChunk, SeenTick

SMALL = ("model.features=8", "model.point_widths=[8]", "diffusion.steps=2")
TINY_SKIPNET = Network("tiny_skipnet", 100.0, "paper_single", ("model.widths=[16]", *SMALL), 16)
TINY_UNET = Network(
    "tiny_unet", 30.0, "paper", ("model.widths=[16,16]", "model.horizon=16", *SMALL), 16
)
MS = 1_000_000


def test_a_task_at_another_rate_keeps_the_speed_of_its_actions() -> None:
    task = task_of(TINY_SKIPNET)
    assert task.control.period_ns == 10 * MS
    assert task.observation.cloud.num_points == 16
    fastest = task.action.high[0] * task.control.rate_hz
    slow = task_of(TINY_UNET)
    assert fastest == pytest.approx(slow.action.high[0] * slow.control.rate_hz)
    assert all(s.rate_hz in (None, 100.0) for s in task.streams.values())


def seen(sent: dict[int, int], chunks: list[SeenChunk], ticks: list[SeenTick]) -> Any:
    commands = {tick.stamp_ns: tick.received_ns - MS for tick in ticks}
    return SimpleNamespace(sent_ns=sent, chunks=chunks, ticks=ticks, commands_ns=commands)


def test_latencies_are_from_sending_to_the_first_command_of_the_observation() -> None:
    sent = {stamp: stamp + MS for stamp in range(100 * MS, 200 * MS, 10 * MS)}
    first, second = 100 * MS, 110 * MS
    chunks = [
        SeenChunk(7, first, "v", first + 3 * MS, first + 4 * MS),
        SeenChunk(8, second, "v", second + 3 * MS, second + 14 * MS),
    ]

    def tick(stamp: int, sequence: int, hold: bool = False) -> SeenTick:
        return SeenTick(stamp, sequence, "v", 2, hold, "", stamp + 2 * MS)

    ticks = [
        tick(first + 5 * MS, 7),
        tick(first + 15 * MS, 7),  # the second action of the same chunk does not count
        tick(second + 15 * MS, 0, hold=True),
        tick(second + 25 * MS, 8),
        tick(second + 35 * MS, 99),  # of a chunk that came before the measurement
    ]
    found = seen(sent, chunks, ticks)
    assert scenarios._command_latencies(found) == pytest.approx([5.0, 25.0])
    waits = scenarios._chunk_latencies(found)
    assert len(waits) == len(sent) - scenarios.IN_FLIGHT_PERIODS
    assert waits[:2] == pytest.approx([3.0, 13.0])
    assert waits[2:] == [float("inf")] * (len(waits) - 2)


def test_set_changes_the_plan_and_mistakes_are_sentences() -> None:
    assert plan_of(True) == QUICK
    assert plan_of(True, ("swaps=3", "unet_s=1.5")) == replace(QUICK, swaps=3, unet_s=1.5)
    for text, sentence in (
        ("swap=3", "did you mean 'swaps'"),
        ("swaps=many", "no number that swaps takes"),
        ("stops=-1", "give a number from 0"),
    ):
        with pytest.raises(ContractError, match=sentence):
            plan_of(False, (text,))


def test_nothing_measured_gives_every_headline_with_a_reason(tmp_path: Path) -> None:
    measured = Measured(reasons={"unet_full": NO_FULL})
    figures = figures_of(measured)
    assert [figure.name for figure in figures[: len(HEADLINES)]] == list(HEADLINES)
    assert all(figure.value is None and figure.n == 0 for figure in figures)
    assert figures[0].note == NO_FULL and figures[-1].note == LEFT_OUT
    assert save_plot(measured, tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.integration
@pytest.mark.slow
def test_a_tiny_run_through_real_processes_gives_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "WARM_UP_S", 0.3)
    monkeypatch.setattr(wire, "SETTLE_S", 0.5)
    plan = Plan(rounds=2, full=0, latency_s=1.0, skipnet_s=0.6, unet_s=0.6, swaps=2, stops=4)
    console = Console(file=(tmp_path / "bars").open("w"))
    before = psutil.Process().children(recursive=True)
    with Parts(console) as parts:
        options = Options(quick=True, folder=tmp_path)
        # One network stands for both U-Nets, so the full one's bundle is there at once.
        unets = (TINY_UNET, TINY_UNET)
        measurement = Measurement(replace(plan, full=1), options, parts, TINY_SKIPNET, unets)
        measurement.run()
    figures = {figure.name: figure for figure in figures_of(measurement.measured)}
    assert len(figures) > 2 * len(HEADLINES)
    for name in HEADLINES:
        figure = figures[name]
        if name.startswith("openvino"):
            assert figure.value is None and "--openvino" in figure.note
            continue
        assert figure.value is not None and figure.n > 0, name
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert figures["swap_to_first_action_ms"].n == 2
    assert figures["stop_latency_p999_ms"].n == 4
    assert figures["deadline_miss_rate_100hz_skipnet"].n > 30
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert save_plot(measurement.measured, tmp_path / "plot.png").is_file()


@pytest.mark.integration
def test_ctrl_c_ends_the_nodes_too(tmp_path: Path) -> None:
    overrides = [f"--set={key}=0" for key in ("rounds", "latency_s", "unet_s", "swaps", "stops")]
    command = [sys.executable, "-m", "rl100.cli", "bench", "policy"]
    process = subprocess.Popen(
        [*command, "--quick", "--out", str(tmp_path), *overrides, "--set=skipnet_s=600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        watched = psutil.Process(process.pid)
        end = time.monotonic() + 60
        while len(nodes := watched.children()) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in error
        assert not any(node.is_running() for node in nodes)
    finally:
        process.kill()
        process.wait()


def test_the_report_is_json_also_where_nothing_was_measured() -> None:
    figures = [asdict(figure) for figure in figures_of(Measured())]
    read = json.loads(json.dumps(figures, allow_nan=False))
    assert [figure["note"] for figure in read] == [LEFT_OUT] * len(figures)
    assert all(figure["value"] is None for figure in read)


def test_a_run_in_which_nothing_came_back_is_told_as_such(tmp_path: Path) -> None:
    memory = {"rl100_policy": [50.0], "rl100_gateway": [40.0]}
    late = [float("inf")] * 9
    nothing = scenarios.Sustained(100.0, late, 9, 9, 9, 9, 0, 0, memory, 1.0)
    measured = Measured(
        bare_ms=[1.0], latencies=scenarios.Latencies(observations=9), sustained={"skipnet": nothing}
    )
    figures = {figure.name: figure for figure in figures_of(measured)}
    assert figures["deadline_miss_rate_100hz_skipnet"].value == 1.0
    assert figures["sensor_to_command_p99_ms"].note == NOTHING_CAME
    assert figures["observations_without_command"].value == 1.0
    assert save_plot(measured, tmp_path / "plot.png").is_file()


def test_a_part_that_fails_leaves_the_others_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rl100.bench.policy import models

    def broken(*_: object) -> None:
        raise ContractError("this runtime is broken")

    monkeypatch.setattr(models, "ddim_against_one_step", broken)
    plan = Plan(rounds=1, full=1, latency_s=0, skipnet_s=0, unet_s=0, swaps=0, stops=0)
    with Parts(Console(file=(tmp_path / "bars").open("w"))) as parts:
        options = Options(folder=tmp_path)
        measurement = Measurement(plan, options, parts, TINY_SKIPNET, (TINY_UNET, TINY_UNET))
        measurement.run()
    figures = {figure.name: figure for figure in figures_of(measurement.measured)}
    assert figures["onnx_vs_ddim10_unet_small_ratio"].note == "this runtime is broken"
    assert "--openvino" in figures["openvino_vs_cpu_provider_ratio"].note
