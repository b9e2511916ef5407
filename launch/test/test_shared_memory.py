"""Shared memory of killed nodes is found and freed, that of living ones is left alone."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl100.shared_memory import FOLDER, left_behind

NAMES = ("fastrtps_00000000000000aa", "fastdds_00000000000000bb")


def _age(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


def _segment(folder: Path, name: str, size: int, age_s: float) -> Path:
    lock = folder / f"{name}_el"
    lock.touch()
    _age(lock, age_s)
    (folder / name).write_bytes(b"x" * size)
    return lock


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_holds_is_counted_and_freed(tmp_path: Path, name: str) -> None:
    _segment(tmp_path, name, 1000, 60.0)
    assert left_behind(tmp_path) == (1, 1000)
    assert left_behind(tmp_path) == (1, 1000)  # looking takes nothing away
    assert left_behind(tmp_path, remove=True) == (1, 1000)
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path, remove=True) == (0, 0)


def test_what_somebody_holds_what_is_new_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    held = _segment(tmp_path, NAMES[0], 10, 60.0)
    _segment(tmp_path, NAMES[1], 10, 1.0)
    for other in ("fastrtps_port7411", "psm_00000000000000cc", "fastrtps_0000000000000000dd"):
        _segment(tmp_path, other, 10, 60.0)
    (tmp_path / "fastrtps_00000000000000ee").write_bytes(b"without a lock")
    before = sorted(tmp_path.iterdir())
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert left_behind(tmp_path, remove=True) == (0, 0)
    assert sorted(tmp_path.iterdir()) == before
    assert left_behind(tmp_path / "none", remove=True) == (0, 0)


NODE = """
import time, rclpy
rclpy.init()
node = rclpy.create_node("left_behind")
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.integration
def test_a_real_node_is_left_alone_until_it_is_killed() -> None:
    pytest.importorskip("rclpy")
    if not FOLDER.is_dir():
        pytest.skip("no /dev/shm here")
    before = set(FOLDER.iterdir())
    node = subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None and node.stdout.readline() == "up\n"
        names = {path.name for path in set(FOLDER.iterdir()) - before}
        held = _held_by(node.pid) & names
        assert held, "Fast DDS has no shared memory here"
        for name in held:
            _age(FOLDER / f"{name}_el", 60.0)
        left_behind(remove=True)
        assert held <= {path.name for path in FOLDER.iterdir()}
    finally:
        node.send_signal(signal.SIGKILL)
        node.communicate()
    count, size = left_behind()
    assert count >= 1 and size > 0
    left_behind(remove=True)
    assert not held & {path.name for path in FOLDER.iterdir()}


def _held_by(pid: int) -> set[str]:
    """Names of the segments that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    names = {Path(line.split()[-1]).name for line in maps if f"{FOLDER}/fast" in line}
    return {name for name in names if "port" not in name}
