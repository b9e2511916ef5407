"""``rl100 doctor`` finds what is missing, says what to do, and gives JSON of a fixed shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_nodes import make_prefix

from rl100 import doctor_machine, doctor_ros
from rl100.doctor import Finding, Status, guarded, is_well


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rl100.cli", "doctor", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_json_has_the_documented_shape() -> None:
    done = run("--json", AMENT_PREFIX_PATH="/nowhere")
    report = json.loads(done.stdout)
    assert set(report) == {"ok", "checks"}
    for check in report["checks"]:
        assert set(check) == {"name", "status", "found", "advice"}
        assert check["status"] in {status.value for status in Status}
        if check["status"] == "missing":
            assert check["advice"], f"{check['name']} is missing, but what can be done?"
    names = [check["name"] for check in report["checks"]]
    assert len(set(names)) == len(names)
    # Nothing is built below /nowhere, so the answer is no.
    assert report["ok"] is False
    assert done.returncode == 1


def test_the_table_names_what_is_missing() -> None:
    done = run(AMENT_PREFIX_PATH="/nowhere")
    assert done.returncode == 1
    assert "workspace" in done.stdout
    assert "make setup" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_built_workspace_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(make_prefix(tmp_path)))
    assert [f.status for f in doctor_ros.check_workspace()] == [Status.OK]
    (tmp_path / "lib" / "rl100_control" / "gateway").unlink()
    (finding,) = doctor_ros.check_workspace()
    assert finding.status is Status.MISSING
    assert "rl100_control/gateway" in finding.found


def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Finding:
    path = tmp_path / "profile.xml"
    path.write_text(text)
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(path))
    (finding,) = doctor_ros.check_profile()
    return finding


def test_a_profile_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<profiles xmlns="x"><t><segment_size>{}</segment_size></t></profiles>'
    assert profile(tmp_path, monkeypatch, text.format(64 << 20)).status is Status.OK
    assert profile(tmp_path, monkeypatch, text.format(512 << 10)).status is Status.WARNING
    assert profile(tmp_path, monkeypatch, "<profiles>").status is Status.MISSING
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "none.xml"))
    assert doctor_ros.check_profile()[0].status is Status.MISSING


def test_the_packaged_profile_is_good_and_local(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(__file__).resolve().parent.parent / "dds" / "fastdds_local.xml"
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(own))
    assert doctor_ros.check_profile()[0].status is Status.OK
    (finding,) = doctor_ros.check_discovery()
    assert "this machine only" in finding.found


def test_without_a_local_profile_the_subnet_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(tmp_path, monkeypatch, "<profiles/>")
    monkeypatch.delenv("ROS_LOCALHOST_ONLY", raising=False)
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    (finding,) = doctor_ros.check_discovery()
    assert finding.status is Status.NOTE
    assert "domain 42" in finding.found
    assert "subnet" in finding.found


def test_an_unknown_middleware_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_none_such")
    (finding,) = doctor_ros.check_rmw()
    assert finding.status is Status.MISSING
    assert "rmw_none_such" in finding.found


def test_little_space_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        total = free = 32 << 20

    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda path: Usage)
    assert doctor_machine.check_disc()[0].status is Status.MISSING
    if Path("/dev/shm").is_dir():
        assert doctor_machine.check_shared_memory()[0].status is Status.MISSING


def test_a_check_that_breaks_does_not_hide_the_others() -> None:
    def check_broken_thing() -> list[Finding]:
        raise RuntimeError("odd machine")

    (finding,) = guarded(check_broken_thing)
    assert finding.name == "broken thing"
    assert "odd machine" in finding.found
    assert is_well([finding])
