"""The ``rl100`` command: quick to start, and one sentence instead of a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl100 import cli
from rl100_contracts.errors import ContractError


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rl100.cli", *words],
        env={**os.environ, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tain"], "Did you mean 'train'"),
        (["up", "deploy", "--dryrun"], "--dry-run"),
        (["up", "deplo"], "did you mean 'deploy'"),
        (["up", "deploy", "bundle=x"], "key:=value"),
        (["up", "record", "--only", "gatway"], "did you mean"),
        (["up", "deploy", "bundle:=/no/bundle"], "/no/bundle"),
        (["task", "check", "/no/task.yaml"], "/no/task.yaml"),
        (["task", "check", "psuh"], "push"),
        (["bundle", "check", "/no/bundle"], "/no/bundle"),
        (["bundle", "check", __file__], "not a folder"),
        (["bundle", "check", "/proc"], "/proc: not a bundle, it has no file manifest.json"),
        (["bench"], "--list"),
        (["bench", "none"], "loop_basics"),
        (["bench", "learn", "--seeds", "x"], "rl100 bench --help"),
        (["train", "il", "--dat", "x"], "--data"),
        (["eval"], "missing argument 'bundle'"),
        (["--wrong"], "no such option: --wrong"),
    ],
)
def test_a_mistake_gives_a_sentence_and_status_2(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["up"],
        ["up", "record", "-s"],
        ["up", "record", "--dry-run"],
        ["task", "check", "push"],
        ["bench", "--list"],
        ["demo", "--help"],
        ["eval", "--help"],
    ],
)
def test_help_and_lists_work_without_a_workspace(words: list[str]) -> None:
    done = run(*words, AMENT_PREFIX_PATH="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


def test_task_check_reads_the_robot_too(tmp_path: Path) -> None:
    pytest.importorskip("pinocchio")
    examples = Path(__file__).resolve().parents[2] / "src" / "rl100_control" / "examples"
    task = examples / "arm6_pose.yaml"
    assert "arm6.urdf: 6 joints, 19 pairs of links" in run("task", "check", str(task)).stdout
    (tmp_path / "arm.yaml").write_text(task.read_text())
    done = run("task", "check", str(tmp_path / "arm.yaml"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    file = tmp_path / "arm.yaml"
    assert done.stderr == f"error: {file}: robot.urdf: {tmp_path / 'arm6.urdf'}: no such file\n"


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["rl100", "--help"]
from rl100.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "rclpy", "mujoco", "onnxruntime", "numpy", "pydantic", "matplotlib"}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_something_unforeseen_gives_a_sentence_and_the_way_to_see_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the\nmoon is wrong")

    monkeypatch.delenv(cli.TRACEBACK_VARIABLE, raising=False)
    monkeypatch.setattr(cli, "call", broken)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the moon is wrong" in err
    assert "RL100_TRACEBACK=1" in err
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    with pytest.raises(RuntimeError):
        cli.main()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("demo", "--out", str(tmp_path / "file" / "demo"))
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'file' / 'demo'}: Not a directory\n"


def test_a_command_whose_package_is_missing_says_so() -> None:
    with pytest.raises(ContractError, match=r"no_such_module.*make setup"):
        cli.run_elsewhere("train", "no_such_module", "app", [])


def test_an_app_elsewhere_keeps_its_command_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
import typer
app = typer.Typer()
@app.command()
def il(data: str, seed: int = 0) -> None:
    print("il", data, seed)
def single(number: int = 1, words: list[str] = typer.Argument(None)) -> None:
    print("single", number, words)
"""
    (tmp_path / "elsewhere_app.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for attribute, words, said in (
        ("app", ["il", "there", "--seed", "3"], "il there 3"),
        ("single", ["--number", "4", "a"], "single 4 ['a']"),
    ):
        cli.run_elsewhere("train", "elsewhere_app", attribute, words)
        assert said in capsys.readouterr().out


def test_ctrl_c_while_python_starts_gives_a_sentence() -> None:
    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as ./rl100 does it
        os.kill(os.getpid(), signal.SIGINT)

    command = [sys.executable, "-m", "rl100.cli", "task", "check", "push"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, preexec_fn=interrupted
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "error: interrupted"


def test_ctrl_c_gives_a_sentence_and_status_130(tmp_path: Path) -> None:
    # A task file that never ends: reading it is interrupted.
    fifo = tmp_path / "task.yaml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "rl100.cli", "task", "check", str(fifo)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background would have Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    writer = os.open(fifo, os.O_WRONLY)  # waits until the command has opened it
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted"
    assert "Traceback" not in err
