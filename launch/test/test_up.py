"""``rl100 up`` starts real processes, restarts them, and leaves none behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nodes import fake_environment, left_over, read_nodes, wait_nodes

from rl100.systems import describe
from rl100.up import RestartPolicy, RunningSystem, StopTimes
from rl100_contracts.errors import ContractError

pytestmark = pytest.mark.integration

RECORD = {"sim": "true", "device": "scripted"}
WORDS = [f"{key}:={value}" for key, value in RECORD.items()]
NAMES = [spec.name for spec in describe("record", RECORD)]
SOON = StopTimes(interrupt=1.0, terminate=0.5, kill=5.0)


def up(tmp_path: Path, *words: str, **does: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rl100.cli", "up", "record", *WORDS, *words]
    return subprocess.Popen(
        command,
        env=fake_environment(tmp_path, **does),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own environment starts fake nodes; afterwards none may be left."""
    for key, value in fake_environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    yield tmp_path
    assert left_over(tmp_path) == []


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    process = up(tmp_path)
    nodes = wait_nodes(tmp_path, NAMES)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert left_over(tmp_path) == []
    assert "Traceback" not in out + err
    for name in NAMES:
        assert nodes[name]["words"][:3] == ["--ros-args", "-r", f"__node:={name}"]
        assert f"{name} " in out  # a prefix on its lines
    assert out.count("goodbye") == len(NAMES)


def test_a_viewer_that_is_closed_ends_nothing_and_ctrl_c_ends_it_too(tmp_path: Path) -> None:
    for does in ("exit:0", "plain"):
        folder = tmp_path / does.replace(":", "")
        folder.mkdir()
        process = up(folder, "rviz:=true", rviz2=does)
        nodes = wait_nodes(folder, [*NAMES, "rviz2"])
        assert nodes["rviz2"]["words"][0] == "-d"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert left_over(folder) == []
        assert out.count("goodbye") == len(NAMES) + (does == "plain")


def test_kill_9_leaves_no_process_behind(tmp_path: Path) -> None:
    process = up(tmp_path)
    wait_nodes(tmp_path, NAMES)
    process.kill()
    process.communicate(timeout=60)
    assert left_over(tmp_path) == []


def test_a_node_that_the_system_needs_ends_it_with_its_status(tmp_path: Path) -> None:
    process = up(tmp_path, rl100_gateway="exit:7")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 7
    assert "rl100_gateway" in err
    assert "the last words of rl100_gateway" in err
    assert "Traceback" not in err
    assert left_over(tmp_path) == []


def test_a_node_that_refuses_its_parameters_is_not_restarted(tmp_path: Path) -> None:
    process = up(tmp_path, rl100_perception="exit:2")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the last words of rl100_perception" in err
    assert "restart" not in out + err and "Traceback" not in err
    assert left_over(tmp_path) == []


def test_nodes_get_the_quiet_maths_settings_and_the_dds_profile(fakes: Path) -> None:
    env = fake_environment(fakes)
    for key in ("OMP_NUM_THREADS", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        env.pop(key, None)
    env["FASTDDS_DEFAULT_PROFILES_FILE"] = "/my/own.xml"
    with RunningSystem(describe("sim"), fakes / "logs", environment=env):
        found = wait_nodes(fakes, ["rl100_sim"])["rl100_sim"]["env"]
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["FASTDDS_DEFAULT_PROFILES_FILE"] == "/my/own.xml"
    assert found["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/my/own.xml"


def test_the_profile_that_comes_with_the_package_is_used_by_default(fakes: Path) -> None:
    env = fake_environment(fakes)
    for key in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        env.pop(key, None)
    with RunningSystem(describe("sim"), fakes / "logs", environment=env):
        found = wait_nodes(fakes, ["rl100_sim"])["rl100_sim"]["env"]
    assert Path(found["FASTDDS_DEFAULT_PROFILES_FILE"]).name == "fastdds_local.xml"
    assert Path(found["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_check_names_the_dead_node_and_its_last_line(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_rl100_recorder", "exit:3")
    with RunningSystem(describe("demo"), fakes / "logs") as system:
        wait_nodes(fakes, ["rl100_recorder"])
        with pytest.raises(ContractError, match=r"rl100_recorder ended with status 3.*last words"):
            for _ in range(200):
                system.check()
                signal.sigtimedwait([], 0.05)
    assert "the last words" in (fakes / "logs" / "rl100_recorder.log").read_text()


def test_a_node_that_may_be_restarted_is_and_then_given_up(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_rl100_recorder", "exit:1")
    nodes = [s for s in describe("record", RECORD) if s.name == "rl100_recorder"]
    policy = RestartPolicy(first_s=0.01, longest_s=0.02, calm_s=1e9, attempts=3)
    with RunningSystem(nodes, fakes / "logs", restarts=policy) as system:
        while system.poll() is None:
            signal.sigtimedwait([], 0.02)
    assert read_nodes(fakes)["rl100_recorder"]["starts"] == 1 + policy.attempts


def test_a_restart_names_the_bundle_that_it_starts_with(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_rl100_policy", "exit:1")
    nodes = [s for s in describe("deploy", {"bundle": "runs/first"}) if s.name == "rl100_policy"]
    policy, lines = RestartPolicy(first_s=0.01, calm_s=1e9, attempts=1), []
    with RunningSystem(
        nodes, fakes / "logs", restarts=policy, sink=lambda name, line: lines.append(line)
    ) as system:
        while system.poll() is None:
            signal.sigtimedwait([], 0.02)
    said = [line for line in lines if "restart 1" in line]
    assert len(said) == 1 and said[0].endswith("with the bundle of its start, runs/first")


def test_a_deaf_node_and_a_child_left_behind_are_killed(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_rl100_gateway", "deaf")
    monkeypatch.setenv("FAKE_rl100_recorder", "parent")
    with RunningSystem(describe("record", RECORD), fakes / "logs", stop_times=SOON) as system:
        nodes = wait_nodes(fakes, NAMES)
        assert nodes["rl100_recorder"]["child"] is not None
        assert system.stop() is False


def test_stopping_twice_is_harmless(fakes: Path) -> None:
    with RunningSystem(describe("sim"), fakes / "logs") as system:
        wait_nodes(fakes, ["rl100_sim"])
        assert system.stop() is True
        assert system.stop() is True


def test_an_executable_that_is_not_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/nowhere")
    with pytest.raises(ContractError, match="'sim' of package rl100_sim"):
        RunningSystem(describe("sim"), Path("unused"))


def test_only_runs_one_node_in_this_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rl100.cli", "up", "record", "--only", "reward_keyboard"]
    env = fake_environment(tmp_path, rl100_reward_keyboard="exit:5")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert set(read_nodes(tmp_path)) == {"rl100_reward_keyboard"}


def test_nodes_that_read_keys_are_not_started_but_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rl100.cli", "up", "record"]
    env = fake_environment(tmp_path)
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_nodes(tmp_path, ["rl100_recorder", "rl100_gateway", "rl100_perception"])
        os.kill(process.pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert "--only rl100_teleop" in out
    assert "--only rl100_reward_keyboard" in out
    assert "rl100_teleop" not in read_nodes(tmp_path)
    assert left_over(tmp_path) == []
