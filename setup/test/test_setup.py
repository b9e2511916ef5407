"""Pins the set-up's decisions: which ROS is used, what the lock may hold, when a package is built
again, how a failing command is reported, and what `./rl100` hands on to the command it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "setup"))

from rl100_setup import packages, ros, workspace  # noqa: E402
from rl100_setup.common import Finished, Paths, Reporter, SetupError, run_logged  # noqa: E402

LOCK = (ROOT / "setup" / "requirements.lock").read_text(encoding="utf-8")


def names(with_ros: bool) -> list[str]:
    blocks = packages.requirement_blocks(LOCK, with_ros)
    return [block.split("==")[0] for block in blocks]


def test_every_locked_package_is_pinned_and_hashed() -> None:
    for block in packages.requirement_blocks(LOCK, with_ros=True):
        assert "==" in block.splitlines()[0]
        assert "--hash=sha256:" in block


def test_lock_names_no_index_and_no_cuda() -> None:
    assert "://" not in LOCK
    assert "index-url" not in LOCK
    heavy = [n for n in names(True) if n == "torch" or n.startswith(("nvidia", "triton"))]
    assert heavy == []


def test_lock_holds_one_ros_distribution_and_one_lark() -> None:
    meta = {n.split("-")[1] for n in names(True) if n.startswith(("ros-jazzy-", "ros-kilted-"))}
    assert meta == {"jazzy"}
    assert "lark-parser" not in names(True)
    assert "ros-fastdds" not in names(True)


def test_sourced_ros_gets_no_ros_wheels() -> None:
    assert any(n.startswith("ros-") for n in names(True))
    without = names(False)
    assert not any(n.startswith("ros-") for n in without)
    assert {"rosbags", "numpy", "colcon-core"} <= set(without)


def test_foreign_prefix_is_a_sourced_ros(tmp_path: Path) -> None:
    own = tmp_path / "install" / "rl100"
    found = ros.detect(
        tmp_path,
        {
            "ROS_DISTRO": "jazzy",
            "AMENT_PREFIX_PATH": f"{own}:/opt/ros/jazzy",
            "PATH": "/opt/ros/jazzy/bin:/usr/bin",
        },
    )
    assert found.name == "jazzy"
    assert found.variables["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"
    assert found.variables["PATH"] == "/opt/ros/jazzy/bin"


def test_own_environment_is_not_a_sourced_ros(tmp_path: Path) -> None:
    environ = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(tmp_path / ".venv")}
    assert not ros.detect(tmp_path, environ).sourced
    assert not ros.detect(tmp_path, {}).sourced


def test_old_ros_is_refused_by_name(tmp_path: Path) -> None:
    environ = {"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": "/opt/ros/humble"}
    with pytest.raises(SetupError, match="humble"):
        ros.detect(tmp_path, environ)


def test_mend_rewrites_both_foreign_paths_and_only_once(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    folder = paths.venv / "share" / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    export = folder / "export_std_msgs__rosidl_generator_pyExport.cmake"
    export.write_text(
        'INCLUDE "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"\n'
    )
    assert ros.mend_cmake_exports(paths, "/py/include", "/np/include") == 1
    assert export.read_text() == 'INCLUDE "/py/include;/np/include"\n'
    assert ros.mend_cmake_exports(paths, "/py/include", "/np/include") == 0


def make_package(root: Path) -> Path:
    folder = root / "src" / "rl100_example"
    (folder / "rl100_example").mkdir(parents=True)
    (folder / "package.xml").write_text("<package><name>rl100_example</name></package>")
    (folder / "setup.py").write_text("")
    (folder / "rl100_example" / "core.py").write_text("")
    return folder


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("package.xml", True),
        ("setup.py", True),
        ("msg/New.msg", True),
        ("params/a.yaml", True),
        ("x.launch.py", True),
        ("rl100_example/core.py", False),
        ("test/data.yaml", False),
        ("rl100_example/__pycache__/core.pyc", False),
    ],
)
def test_only_what_a_build_reads_leads_to_a_build(
    tmp_path: Path, changed: str, rebuilt: bool
) -> None:
    folder = make_package(tmp_path)
    (before,) = workspace.find_packages(tmp_path)
    target = folder / changed
    target.parent.mkdir(exist_ok=True)
    target.write_text("<package><name>rl100_example</name><!-- changed --></package>")
    (after,) = workspace.find_packages(tmp_path)
    assert before.name == "rl100_example"
    assert (before.digest != after.digest) is rebuilt


def torch_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Finished
) -> tuple[list[list[str]], str | None]:
    """Install torch with pip's first answer given; the commands and the error, if any."""
    paths = Paths(tmp_path)
    paths.venv.mkdir()
    (tmp_path / "setup").mkdir()
    paths.lock_file.write_text("numpy==2.2.6 \\\n    --hash=sha256:00\n")
    commands: list[list[str]] = []

    def fake(command: list[str], *_rest: object) -> Finished:
        commands.append(command)
        return first if len(commands) == 1 else Finished(0, "")

    monkeypatch.setattr(packages, "run_logged", fake)
    monkeypatch.setattr(packages, "_installed_torch", lambda *_: "x")
    try:
        packages.install_torch(paths, "cpu", {}, Reporter())
    except SetupError as error:
        return commands, str(error)
    return commands, None


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: No matching distribution found for torch==2.13.0+cpu",
        "ERROR: Cannot install torch==2.13.0+cpu because these package versions have conflicting "
        "dependencies.\nThe user requested (constraint) torch<=2.14.1\n"
        "ERROR: ResolutionImpossible: for help visit the documentation",
    ],
)
def test_missing_cpu_wheel_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    commands, error = torch_outcome(tmp_path, monkeypatch, Finished(1, said))
    assert error is None
    assert [c[-1] for c in commands] == [f"torch=={packages.TORCH}+cpu", f"torch=={packages.TORCH}"]
    assert (tmp_path / ".venv" / "rl100_constraints.txt").read_text() == "numpy==2.2.6\n"


def test_network_error_does_not_fall_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Finished(
        1,
        "WARNING: Retrying (Retry(total=0)) after connection broken by NewConnectionError\n"
        "ERROR: No matching distribution found for torch==2.13.0+cpu",
    )
    commands, error = torch_outcome(tmp_path, monkeypatch, broken)
    assert len(commands) == 1
    assert error is not None and "network" in error


def test_interrupt_ends_the_whole_group(tmp_path: Path) -> None:
    """A child of the command must not outlive Ctrl-C."""
    paths = Paths(tmp_path)
    paths.venv.mkdir()
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from rl100_setup.common import *;"
        "p = Paths(Path(sys.argv[2]));"
        "run_logged(['sh', '-c', 'echo $$ > pid; sleep 60 & wait'], os.environ, p, Reporter())"
    )
    outer = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "setup"), str(tmp_path)], stderr=subprocess.DEVNULL
    )
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    group = int(pid_file.read_text())
    outer.send_signal(signal.SIGINT)
    assert outer.wait(timeout=60) != 0
    # Gone, or about to be reaped by init: no live process is left in the group.
    deadline = time.monotonic() + 60
    while _group_alive(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_interrupt_while_the_command_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    paths.venv.mkdir()
    start, started = subprocess.Popen, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        started.append(start(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_logged(["sleep", "60"], os.environ, paths, Reporter())
    assert started[0].returncode is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _group_alive(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_run_logged_returns_status_and_keeps_the_log(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.venv.mkdir()
    done = run_logged(["sh", "-c", "echo out; echo err >&2; exit 3"], os.environ, paths, Reporter())
    assert done.code == 3
    assert set(done.output.split()) == {"out", "err"}
    assert "err" in paths.log.read_text()


def rl100(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "rl100"), "env", "--", *words],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        cwd="/",
    )


def test_env_passes_the_exit_code_on() -> None:
    assert rl100("sh", "-c", "exit 7").returncode == 7


def test_env_sets_profile_and_middleware_unless_the_user_did() -> None:
    show = "echo $RMW_IMPLEMENTATION $FASTRTPS_DEFAULT_PROFILES_FILE $OMP_WAIT_POLICY"
    rmw, profile, policy = rl100("sh", "-c", show).stdout.split()
    assert (rmw, policy) == ("rmw_fastrtps_cpp", "PASSIVE")
    assert Path(profile).is_file()
    mine = rl100("sh", "-c", show, FASTRTPS_DEFAULT_PROFILES_FILE="/my.xml").stdout.split()
    assert mine[1] == "/my.xml"


@pytest.mark.parametrize(
    ("command", "policy"),
    [
        (("up", "deploy"), "PASSIVE"),
        (("train", "il"), "PASSIVE"),  # beside the robot's nodes
        (("bench", "policy"), "PASSIVE"),
        (("bench", "learn", "--quick"), "unset"),
        (("iterate", "--out", "x"), "unset"),
    ],
)
def test_threads_stay_awake_only_where_the_learner_is_alone(
    tmp_path: Path, command: tuple[str, ...], policy: str
) -> None:
    told = 'import os; print(os.environ.get("OMP_WAIT_POLICY", "unset"), flush=True); os._exit(0)'
    (tmp_path / "sitecustomize.py").write_text(told)
    done = subprocess.run(
        [str(ROOT / "rl100"), *command],
        env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.stdout.split() == [policy], done.stderr


def test_env_works_through_a_link_and_nested(tmp_path: Path) -> None:
    link = tmp_path / "rl100"
    link.symlink_to(ROOT / "rl100")
    shown = rl100(str(link), "env", "--", "python", "-c", "import os; print(os.environ['PATH'])")
    assert shown.returncode == 0, shown.stderr
    own = [p for p in shown.stdout.split(":") if p == str(ROOT / ".venv" / "bin")]
    assert len(own) == 1


def test_messages_and_packages_are_found_in_the_environment() -> None:
    code = "import rclpy, rl100_msgs.msg, rl100_contracts, rl100"
    done = rl100("python", "-c", code)
    assert done.returncode == 0, done.stderr
