"""What a training shows: the time that remains, also of phases that don't say it themselves; a
phase that begins again begins at nought; without a terminal, a line now and then, no control codes.
"""

from __future__ import annotations

import io

import pytest

from rl100_trainer import console
from rl100_trainer.console import Paces, PlainLines, progress_bars
from rl100_trainer.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of the clock, to be set."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_the_time_that_remains_follows_the_pace(clock: list[float]) -> None:
    paces = Paces()
    assert paces.at(Progress("s", "critics", 0, 100)) == (True, -1.0)
    clock[0] += 10.0
    assert paces.at(Progress("s", "critics", 20, 100)) == (False, pytest.approx(40.0))
    assert paces.at(Progress("s", "critics", 20, 100, eta_s=7.0)) == (False, 7.0)
    # The next iteration's critics: nothing of the first ones' time counts.
    clock[0] += 1000.0
    assert paces.at(Progress("s", "critics", 10, 100)) == (True, -1.0)
    clock[0] += 1.0
    assert paces.at(Progress("s", "critics", 20, 100)) == (False, pytest.approx(8.0))
    assert paces.at(Progress("s", "rollouts", 5, 0)) == (True, -1.0)


def test_a_log_has_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for step in range(101):
        lines.show(Progress("s", "critics", step, 100, 0.5), "3 solved" if step == 50 else "")
        clock[0] += 0.5
    said = stream.getvalue().splitlines()
    assert said == [
        "critics 0/100, loss 0.5000",
        "critics 40/100, loss 0.5000, 30 s left",
        "critics 80/100, loss 0.5000, 10 s left",
        "critics 100/100, loss 0.5000",
    ]


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as show:
        show(Progress("s", "denoiser", 1, 2))
        show(Progress("s", "denoiser", 2, 2))
    said = capsys.readouterr()
    assert said.err.splitlines() == ["denoiser 1/2", "denoiser 2/2"] and not said.out
