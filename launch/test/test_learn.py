"""The benchmark that learns: what its figures are made of, and what it keeps.

Pins: successes are pooled over seeds, means have intervals; a seed that is finished is not learnt
again; a baseline without an offline stage has no comparison with imitation; the picture is drawn; a
task that is unknown or not installed is told in one sentence.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rl100.bench import learn, learning_seeds
from rl100.bench.frame import Options
from rl100.learning import DEMONSTRATION_SEEDS
from rl100.problems import problem_named
from rl100_contracts.errors import ContractError

TINY = (
    "imitation.steps=20",
    "distill.steps=5",
    "critic.steps=10",
    "offline.rollouts=8",
    "offline.phases=1",
    "offline.steps=2",
    "offline.check_episodes=4",
    "online.env_steps=300",
)


def result(seed: int, bc: int, wall_s: float) -> dict[str, Any]:
    return {
        "task": "reach",
        "seed": seed,
        "algorithm": "rl100",
        "episodes": 100,
        "successes": {"bc_success": bc, "online_success": 99},
        "env_steps": 1000 * (seed + 1),
        "wall_s": wall_s,
        "steps": {"online": {"curve": [[0, 0.5], [1000, 0.99]]}},
    }


def test_successes_are_pooled_over_seeds(tmp_path: Path) -> None:
    results = [result(0, 40, 10.0), result(1, 60, 20.0)]
    figures = {figure.name: figure for figure in learn.figures_of(results)}
    assert set(figures) == {"bc_success", "online_success", "env_steps", "wall_s"}
    assert (figures["bc_success"].value, figures["bc_success"].n) == (0.5, 200)
    assert figures["bc_success"].low < 0.5 < figures["bc_success"].high
    assert (figures["wall_s"].value, figures["wall_s"].n) == (15.0, 2)
    picture = learn.save_plot(results, tmp_path / "new" / "learn.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_finished_seed_is_not_learnt_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(quick=True, overrides=TINY, folder=tmp_path)
    first = learn.run(options)
    names = {figure.name for figure in first}
    assert {"bc_success", "offline_success", "online_success", "one_step_success"} <= names
    assert set(learn.IMITATION_FIGURES) <= names
    kept = json.loads((tmp_path / "reach" / "seed_0" / "result.json").read_text())
    assert kept["overrides"] == list(TINY) and kept["env_steps"] > 300

    def never(*_: object) -> None:
        raise AssertionError("learnt again")

    monkeypatch.setattr(learn, "_learn", never)
    assert learn.run(options) == first
    with pytest.raises(ContractError, match="another task or configuration"):
        learn.run(Options(quick=True, overrides=(*TINY, "critic.steps=11"), folder=tmp_path))


@pytest.mark.slow
def test_a_baseline_has_only_what_it_does(tmp_path: Path) -> None:
    overrides = (*TINY, "run.algorithm=dppo")
    options = Options(quick=True, overrides=overrides, folder=tmp_path, first_seed=4)
    names = {figure.name for figure in learn.run(options)}
    assert "online_success" in names and "offline_success" not in names
    runs = tmp_path / "reach-dppo"
    assert (runs / "learn.png").is_file() and [f.name for f in runs.iterdir() if f.is_dir()] == [
        "seed_4"
    ]
    assert not set(learn.IMITATION_FIGURES) & names


def test_a_mistake_does_not_take_the_folder(tmp_path: Path) -> None:
    mistakes = {"critic.step=11": "did you mean 'steps'", "model.horizon=1": "is below the"}
    if not torch.cuda.is_available():
        mistakes["run.device=cuda"] = "use run.device=cpu"
    for override, words in mistakes.items():
        with pytest.raises(ContractError, match=words):
            learn.run(Options(quick=True, overrides=(override,), folder=tmp_path))
        assert not list(tmp_path.rglob("*.json"))


def test_seeds_that_would_learn_from_the_evaluation_are_refused(tmp_path: Path) -> None:
    demonstrated = 100 * DEMONSTRATION_SEEDS
    assert demonstrated == learning_seeds.FRESH_SEEDS
    with pytest.raises(ContractError, match="seeds are 0 to 99"):
        learn.run(Options(seeds=2, first_seed=99, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_unknown_tasks_are_told() -> None:
    known = "'psh' is unknown: give one of push, push_rgb, reach, metaworld:"
    with pytest.raises(ContractError, match=known):
        problem_named("psh")
    if importlib.util.find_spec("metaworld") is None:
        with pytest.raises(ContractError, match="make metaworld"):
            problem_named("metaworld:push-v3")
