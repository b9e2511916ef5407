"""The benchmark of the gate: what its figures are made of, and which policies they belong to.

Pins: successes are pooled over seeds, refused phases are counted; where the gate refused nothing
the policy without it is the same one; a candidate that fails its trial leaves the policy of before;
a run is shared with the benchmark ``learn``; a baseline without an offline stage is told.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rl100.bench import gate
from rl100.bench.frame import Options
from rl100.bench.gated_phases import KINDS
from rl100.bench.learning_seeds import check_request
from rl100_contracts.errors import ContractError

TINY = (
    "imitation.steps=20",
    "distill.steps=5",
    "critic.steps=12",
    "offline.rollouts=8",
    "offline.phases=1",
    "offline.steps=2",
    "offline.check_episodes=4",
    "online.env_steps=300",
)


def case(off: int, on: int, tried: int, refused: int) -> dict[str, Any]:
    verdicts = [{"accepted": number >= refused} for number in range(4)]
    counts = {"gate_off": off, "gate": on, "gate_and_trial": tried}
    return {**counts, "refused": refused, "verdicts": verdicts}


def test_successes_are_pooled_over_seeds(tmp_path: Path) -> None:
    results = [
        {
            "task": "reach",
            "seed": seed,
            "episodes": 100,
            "behaviour": 50,
            "good": case(80 + seed, 80, 80, 0),
            "poor": case(20, 40, 50, seed + 1),
        }
        for seed in (0, 1)
    ]
    figures = {figure.name: figure for figure in gate.figures_of(results)}
    assert len(figures) == 1 + 2 * 4
    assert figures["good_critics_gate_off_success"].value == 0.805
    assert figures["poor_critics_gate_success"].samples == (0.4, 0.4)
    assert figures["poor_critics_gate_and_trial_success"].value == 0.5
    assert figures["poor_critics_refused"].samples == (1.0, 2.0)
    picture = gate.save_plot(results, tmp_path / "new" / "gate.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_is_measured_once_and_shared_with_the_other_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(quick=True, overrides=TINY, folder=tmp_path)
    first = gate.run(options)
    run = tmp_path / "reach" / "seed_0"
    kept = json.loads((run / gate.RESULT).read_text())
    for kind in KINDS:
        measured = kept[kind]
        assert len(measured["verdicts"]) == 2  # twice offline.phases
        assert measured["refused"] == sum(not v["accepted"] for v in measured["verdicts"])
        if measured["refused"] == 0:
            assert measured["gate_off"] == measured["gate"]
        adopted = measured["trial"]["adopted"]
        assert measured["gate_and_trial"] == (measured["gate"] if adopted else kept["behaviour"])
    done = set(json.loads((run / "steps.json").read_text()))
    assert {"il", "iteration_1:rollouts", "iteration_1:critics"} <= done
    assert "iteration_1:improvement" not in done  # what it tries is not the run's own

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(gate, "opened", never)
        assert gate.run(options) == first
    (run / gate.RESULT).unlink()  # interrupted at the very end: nothing is done again
    with monkeypatch.context() as patch:
        patch.setattr("rl100_trainer.stages.offline_iteration.improve", never)
        patch.setattr("rl100_trainer.stages.offline_iteration.fit_critics", never)
        patch.setattr("rl100_trainer.stages.offline_iteration.trial_result", never)
        assert gate.run(options) == first
    check_request("reach", run, options)  # the benchmark learn takes this run for its own
    with pytest.raises(ContractError, match="another task or configuration"):
        check_request("reach", run, replace(options, overrides=()))


@pytest.mark.parametrize(
    "override",
    [
        "run.algorithm=dppo",
        "offline.iterations=0",
        "offline.check_episodes=0",
        "offline.gate=none",
    ],
)
def test_a_run_without_gated_improvements_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(ContractError, match="needs an offline stage with gate and trials"):
        gate.run(Options(quick=True, overrides=(*TINY, override), folder=tmp_path))
    assert list(tmp_path.iterdir()) == []  # the right command can have the folder
