"""Two trainings can't run in one folder; the lock ends with its process and leaves no file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rl100_contracts.errors import ContractError
from rl100_trainer.run_lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from rl100_trainer.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_one_is_told(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    line = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        told = pytest.raises(ContractError, match="another training is running in this folder")
        with told, locked(run):
            raise AssertionError("both")
        holder.kill()
    with locked(run):  # whatever became of the other one
        (run / "config.yaml").touch()
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_folder_that_nothing_came_into_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no episode"), locked(tmp_path / "runs" / "mine"):
        raise ContractError("no episode")
    assert not (tmp_path / "runs" / "mine").exists()
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()
