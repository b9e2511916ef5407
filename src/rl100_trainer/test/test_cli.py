"""The command: JSON lines and a bundle, one-sentence refusals, SIGINT and a full disc keep the
checkpoint, and the child process around it ends within seconds and says how it ended.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import write_text_atomic
from rl100_contracts.task import Task, load_task
from rl100_trainer.child import Outcome, TrainingProcess, training_command
from rl100_trainer.cli import main
from rl100_trainer.progress import ignore_progress
from rl100_trainer.stage_runner import StageRequest, run_stage

_spec = importlib.util.spec_from_file_location("trainer_bags", Path(__file__).parent / "bags.py")
assert _spec is not None and _spec.loader is not None
bags = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bags)

SMALL = (
    "model.widths=[32]",
    "model.features=8",
    "model.point_widths=[8,16]",
    "diffusion.steps=5",
    "imitation.batch_size=16",
    "distill.steps=20",
    "device=cpu",
)
FOREVER = 1_000_000


@pytest.fixture
def prepared(tmp_path: Path, task: Task) -> tuple[str, Path, Path]:
    """Task file, folder of two episodes, and a run folder."""
    write_text_atomic(tmp_path / "small.yaml", task.to_yaml())
    for name in ("a", "b"):
        bags.write_bag(tmp_path / "data", name, task)
    return str(tmp_path / "small.yaml"), tmp_path / "data", tmp_path / "run"


def command(prepared: tuple[str, Path, Path], *overrides: str) -> list[str]:
    task, data, run = prepared
    settings = (*SMALL, *overrides)
    return [*training_command("il", task, [str(data)], run, settings), "--no-cache"]


@pytest.mark.slow
def test_json_lines_lead_to_a_bundle(prepared: tuple[str, Path, Path], task: Task) -> None:
    broken = prepared[1] / "a" / "a.mcap"
    broken.write_bytes(broken.read_bytes()[:-100])
    done = subprocess.run(
        command(prepared, "imitation.steps=60"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    phases = [line["progress"]["phase"] for line in lines if "progress" in line]
    assert list(dict.fromkeys(phases)) == ["read", "denoiser", "student", "export"]
    result = lines[-1]["result"]
    assert len(result["skipped"]) == 1 and "a.mcap" in result["skipped"][0]
    assert verify_bundle(Path(result["bundle"]), task).policy_version == result["policy_version"]
    again = subprocess.run(
        command(prepared, "imitation.steps=60"), capture_output=True, text=True, timeout=120
    )
    assert json.loads(again.stdout.splitlines()[-1]) == lines[-1]


@pytest.mark.parametrize(
    ("override", "words"),
    [("imitation.step=3", "did you mean 'steps'"), ("steps=3", "say which one you mean")],
)
def test_mistakes_are_one_sentence(
    prepared: tuple[str, Path, Path], override: str, words: str
) -> None:
    done = subprocess.run(command(prepared, override), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"), [(["il", "--dat", "x"], "--data"), (["ill"], "Did you mean 'il'")]
)
def test_wrong_words_are_one_sentence(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert said in told and told.startswith("error: train") and len(told.splitlines()) == 1


def test_a_disc_that_is_full_is_told_wherever_it_shows(
    prepared: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is written more often than checkpoints are, so it is the first one to fail."""
    task, data, run = prepared
    settings = (*SMALL, "imitation.steps=60", "run.checkpoint_every=20")
    request = StageRequest("il", task, [data], run, overrides=settings)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("rl100_trainer.runlog.RunLog.scalars", full)
        with pytest.raises(ContractError, match=r"run: the run cannot be written .No space left"):
            run_stage(request, ignore_progress)
    assert json.loads((run / "checkpoint" / "state.json").read_text())["step"] == 40
    result, _ = run_stage(request, ignore_progress)
    verify_bundle(result.bundle, load_task(task))


@pytest.mark.slow
def test_interrupt_keeps_the_checkpoint(prepared: tuple[str, Path, Path]) -> None:
    process = subprocess.Popen(
        command(prepared, f"imitation.steps={FOREVER}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"denoiser"' in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from it" in errors
    assert len(errors.strip().splitlines()) == 1
    state = json.loads((prepared[2] / "checkpoint" / "state.json").read_text())
    assert state["phase"] == "denoiser" and state["step"] >= 50


class _Watcher:
    """Collects what a training process says."""

    def __init__(self) -> None:
        self.progress: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended: queue.Queue[Outcome] = queue.Queue()

    def start(self, line: list[str]) -> TrainingProcess:
        return TrainingProcess(line, self.progress.put, self.ended.put)


@pytest.mark.slow
def test_child_reports_and_is_cancelled(prepared: tuple[str, Path, Path]) -> None:
    watcher = _Watcher()
    child = watcher.start(command(prepared, f"imitation.steps={FOREVER}"))
    while watcher.progress.get(timeout=60)["phase"] != "denoiser":
        pass
    child.stop()
    outcome = watcher.ended.get(timeout=10)
    assert outcome.result is None and "cancelled" in outcome.message


def test_child_that_ignores_the_request_is_killed() -> None:
    watcher = _Watcher()
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "print('{\"progress\": {}}', flush=True); time.sleep(600)"
    )
    child = watcher.start([sys.executable, "-c", code])
    watcher.progress.get(timeout=60)
    child.stop_and_wait()
    assert watcher.ended.get(timeout=10).result is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('error: the data is bad')", "the data is bad"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended (-9)"),
        ("pass", "said nothing"),
    ],
)
def test_child_that_fails_says_why(code: str, words: str) -> None:
    watcher = _Watcher()
    watcher.start([sys.executable, "-c", code])
    outcome = watcher.ended.get(timeout=60)
    assert outcome.result is None and words in outcome.message
