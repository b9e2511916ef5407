"""Steps of a run: each is done once, interrupted attempts count, other data are refused; a full
disc is told in one sentence, and numbers that aren't finite don't end a run.
"""

from __future__ import annotations

import errno
import math
import os
import time
from pathlib import Path

import pytest

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.stages.steps import Result, Steps


def test_attempts_that_were_interrupted_count_into_the_time(tmp_path: Path) -> None:
    def cut_off(folder: Path) -> Result:
        time.sleep(0.05)
        raise Interrupted("cut off")

    with pytest.raises(Interrupted):
        Steps(tmp_path, "data").do("online", cut_off)
    steps = Steps(tmp_path, "data")
    before = steps.seconds
    assert before >= 0.05 and steps.env_steps == 0
    steps.do("online", lambda folder: {"env_steps": 7})
    assert steps.env_steps == 7
    assert steps.results["online"]["seconds"] >= before
    assert steps.seconds == pytest.approx(steps.results["online"]["seconds"])
    assert (tmp_path / "online").is_dir()


def test_a_full_disc_is_told_and_does_not_hide_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(tmp_path, "data")
    steps.do("il", lambda folder: {"metrics": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def interrupted(folder: Path) -> Result:
        raise Interrupted("cut off")

    with monkeypatch.context() as patch:
        patch.setattr("rl100_trainer.stages.steps.write_json_atomic", full)
        with pytest.raises(ContractError, match=r"'online' cannot be written .No space left"):
            steps.do("online", lambda folder: {})
        with pytest.raises(Interrupted, match="cut off"):
            steps.do("online", interrupted)
    assert list(Steps(tmp_path, "data").results) == ["data", "il"]
    steps.do("online", lambda folder: {"env_steps": 7})
    assert Steps(tmp_path, "data").env_steps == 7


def test_an_error_of_something_else_is_no_full_disc(tmp_path: Path) -> None:
    def broken(folder: Path) -> Result:
        raise BrokenPipeError(errno.EPIPE, "a world died")

    with pytest.raises(BrokenPipeError):
        Steps(tmp_path, "data").do("online", broken)


def test_what_is_not_finite_is_kept_as_unknown(tmp_path: Path) -> None:
    """The gate refuses a candidate that diverged; what was logged of it must not end the run."""
    logs = {"verdicts": [{"kl": math.nan, "accepted": False}], "loss": math.inf, "steps": 3}
    Steps(tmp_path, "data").do("improvement", lambda folder: dict(logs))
    kept = Steps(tmp_path, "data").results["improvement"]
    assert kept["verdicts"] == [{"kl": None, "accepted": False}]
    assert kept["loss"] is None and kept["steps"] == 3


def test_a_step_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    Steps(tmp_path, "data").do("il", lambda folder: {"metrics": 1})

    def never(folder: Path) -> Result:
        raise AssertionError("done twice")

    assert Steps(tmp_path, "data").do("il", never)["metrics"] == 1


def test_other_demonstrations_are_refused(tmp_path: Path) -> None:
    Steps(tmp_path, "data")
    with pytest.raises(ContractError, match="other demonstrations"):
        Steps(tmp_path, "others")
