"""The trial that a candidate must pass, and what is kept of it.

Pins: what holds its ground is adopted, what nothing has judged must win; a clearly worse candidate
is stopped early and a better one is rolled out to the end, as its episodes are data; it is compared
with no more than the behaviour policy has done; no change is not tried at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rl100_trainer.config import load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.stages.adoption import BATCH, RolledOut, Trial, trial_result, try_out
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import REACH_SPEC, reach_demonstrations

COUNT = 100


@pytest.fixture(scope="module")
def episode() -> EpisodeArrays:
    return reach_demonstrations(range(1))[0]


class Fixed:
    """Rollouts with known outcomes."""

    def __init__(self, episode: EpisodeArrays, outcomes: Sequence[bool]) -> None:
        self.episode, self.outcomes = episode, outcomes

    def collect(
        self, policy: object, seeds: Sequence[int], on_episodes: Callable[[int], None]
    ) -> list[EpisodeArrays]:
        on_episodes(len(seeds))
        outcomes = ["success" if self.outcomes[seed] else "failure" for seed in seeds]
        return [dataclasses.replace(self.episode, outcome=outcome) for outcome in outcomes]


def tried(
    episode: EpisodeArrays, ours: Sequence[bool], theirs: Sequence[bool], *, judged: bool = True
) -> Trial:
    source = Fixed(episode, ours)
    return try_out(source, object(), theirs, range(len(ours)), judged=judged)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wins", "losses", "judged", "adopted"),
    [
        (30, 2, True, True),
        (2, 30, True, False),
        (10, 10, True, True),
        (4, 12, True, False),
        (30, 2, False, True),
        (11, 10, False, True),
        (10, 10, False, False),  # nothing has judged it, so it must win
    ],
)
def test_what_holds_its_ground_is_adopted(
    episode: EpisodeArrays, wins: int, losses: int, judged: bool, adopted: bool
) -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    ours = [bool(i < wins) for i in order]
    theirs = [bool(wins <= i < wins + losses) for i in order]
    trial = tried(episode, ours, theirs, judged=judged)
    assert trial.adopted is adopted
    log = trial.as_dict()
    assert log["env_steps"] == len(trial.episodes) * len(episode)
    assert log["wins"] <= wins and log["losses"] <= losses  # type: ignore[operator]


def test_only_the_worse_is_stopped_early(episode: EpisodeArrays) -> None:
    always, never = [True] * COUNT, [False] * COUNT
    worse = tried(episode, never, always)
    assert not worse.adopted and worse.log["verdict"] == "worse"
    assert len(worse.episodes) == BATCH < COUNT
    better = tried(episode, always, never)
    assert better.adopted and better.log["verdict"] == "better"
    assert len(better.episodes) == COUNT


def test_it_is_compared_with_what_there_is(episode: EpisodeArrays) -> None:
    ours = [True] * 4 + [False] * 8
    trial = tried(episode, ours, [True] * 3)
    assert trial.adopted and len(trial.episodes) == 12
    assert trial.log["ties"] == 3.0 and trial.log["candidate_success"] == 1.0
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        tried(episode, ours, [])


def test_no_change_is_not_tried(episode: EpisodeArrays) -> None:
    policy = make_policy(REACH_SPEC, load_config(None, ["model.widths=[16]"]))

    def result(candidate: DiffusionPolicy, seeds: range, judged: bool) -> Trial:
        behaviour = RolledOut(policy, range(3), [episode] * 3)
        source = Fixed(episode, [True] * COUNT)
        return trial_result(source, candidate, behaviour, seeds, lambda *_: None, judged=judged)  # type: ignore[arg-type]

    same = result(policy, range(3), True)
    assert not same.adopted and same.as_dict()["env_steps"] == 0
    other = make_policy(REACH_SPEC, load_config(None, ["model.widths=[16]", "run.seed=1"]))
    assert result(other, range(3), True).adopted
    for judged in (True, False):  # no trial was asked for: the gate decides
        assert result(other, range(0), judged).adopted is judged
