"""Steps of a run: each is done once, interrupted attempts count, other data are refused."""

from __future__ import annotations

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


def test_a_step_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    Steps(tmp_path, "data").do("il", lambda folder: {"metrics": 1})

    def never(folder: Path) -> Result:
        raise AssertionError("done twice")

    assert Steps(tmp_path, "data").do("il", never)["metrics"] == 1


def test_other_demonstrations_are_refused(tmp_path: Path) -> None:
    Steps(tmp_path, "data")
    with pytest.raises(ContractError, match="other demonstrations"):
        Steps(tmp_path, "others")
