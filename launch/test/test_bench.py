"""The bench frame: JSON of a fixed shape, a table, and sentences for mistakes."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from rl100.bench import command
from rl100.bench.frame import (
    Bench,
    Figure,
    Options,
    mean,
    missing,
    proportion,
    quantile,
    report,
    single,
)
from rl100.bench.loop_basics import direct_steps_per_s, setup_seconds
from rl100_contracts.errors import ContractError


def measure(options: Options) -> list[Figure]:
    n = 10 if options.quick else 100
    return [
        proportion("success", n // 2, n),
        mean("speed", [1.0, 2.0, 3.0], "1/s"),
        single("setup_s", 12.5, "s"),
        quantile("wait_p99_ms", [float(value) for value in range(n)], 0.99, "ms", "of a count"),
        missing("never_ms", "ms", "nobody asked for it"),
    ]


BENCH = Bench("pretend", "a benchmark of the test", measure)


def test_the_report_has_the_documented_shape() -> None:
    result = json.loads(json.dumps(report(BENCH, Options(quick=True)), allow_nan=False))
    expected = {"bench", "command", "quick", "machine", "load", "versions", "figures"}
    assert set(result) == expected
    assert result["load"]["cores_of_others"] >= 0 and len(result["load"]["after"]) == 3
    assert set(result["machine"]) == {"cpu", "cores", "memory_gib", "load_average", "os"}
    assert result["machine"]["cores"] >= 1
    assert len(result["machine"]["load_average"]) == 3
    assert "python" in result["versions"]
    for figure in result["figures"]:
        assert set(figure) == {"name", "value", "unit", "n", "low", "high", "samples", "note"}
        if figure["n"]:
            assert figure["low"] <= figure["value"] <= figure["high"]
        else:
            assert figure["value"] is None and figure["note"] == "nobody asked for it"
    assert result["figures"][0]["n"] == 10


def test_the_file_and_the_table_hold_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.BENCHES, "pretend", BENCH)
    command.run_bench("pretend", json_file=tmp_path / "figures.json")
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "figures.json").read_text())
    for figure in result["figures"]:
        assert figure["name"] in out
    assert "12.5" in out
    assert "not measured: never_ms: nobody asked for it" in out
    assert "others kept" in out
    assert result["figures"][0]["n"] == 100


def test_no_line_of_the_table_is_cut_at_80_columns() -> None:
    longest = [
        quantile("sensor_to_chunk_30hz_unet_small_p50_ms", [10.71, 123.4, 250.8], 0.5, "ms"),
        single("gateway_memory_growth_30hz_unet_small", -0.125, "MiB"),
        Figure("policy_missed_deadlines_30hz_unet_small", 12345, "count", 120_000, 12300, 12400),
        proportion("deadline_miss_rate_100hz_skipnet", 12, 59_990),
        missing("realtime", "0 or 1", "left out"),
    ]
    result = {"bench": "policy", "machine": {"cpu": "a cpu"}}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(command.figures_table({**result, "figures": [asdict(f) for f in longest]}))
    text = console.export_text()
    assert "…" not in text and len(text.splitlines()) == len(longest) + 2
    for figure in longest:
        assert figure.name in text


def test_mistakes_are_found_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(options: Options) -> list[Figure]:
        raise AssertionError("measured")

    monkeypatch.setitem(command.BENCHES, "pretend", Bench("pretend", "", never))
    with pytest.raises(ContractError, match="no such folder"):
        command.run_bench("pretend", json_file=tmp_path / "none" / "figures.json")
    with pytest.raises(ContractError, match="is a folder"):
        command.run_bench("pretend", json_file=tmp_path)
    with pytest.raises(ContractError, match="did you mean 'loop_basics'"):
        command.run_bench("loop_basic")


def test_the_set_up_time_is_read_from_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="make setup"):
        setup_seconds(tmp_path)
    (tmp_path / "rl100_setup.json").write_text('{"setup_s": 154.3}')
    assert setup_seconds(tmp_path) == 154.3
    (tmp_path / "rl100_setup.json").write_text("{}")
    with pytest.raises(ContractError, match="setup_s"):
        setup_seconds(tmp_path)


@pytest.mark.slow
def test_the_loop_in_process_is_measured_per_episode() -> None:
    pytest.importorskip("mujoco")
    rates = direct_steps_per_s(2)
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)
