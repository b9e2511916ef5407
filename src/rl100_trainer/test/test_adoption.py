"""The trial that a candidate must pass, and what is kept of it.

Pins: what holds its ground is adopted, what nothing has judged must win; both policies run as
deployed from the same starts, and all that they did is kept; a clear difference ends the trial
early; no change is not tried at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rl100_trainer.config import load_config
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.stages.adoption import BATCH, Trial, trial_result, try_out
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import REACH_SPEC, reach_demonstrations

COUNT = 100


@pytest.fixture(scope="module")
def episode() -> EpisodeArrays:
    return reach_demonstrations(range(1))[0]


class Fixed:
    """Rollouts with known outcomes, by the identity of the policy."""

    def __init__(self, episode: EpisodeArrays, outcomes: dict[int, Sequence[bool]]) -> None:
        self.episode, self.outcomes = episode, outcomes

    def collect(
        self,
        policy: object,
        seeds: Sequence[int],
        on_episodes: Callable[[int], None],
        *,
        explore: bool = True,
    ) -> list[EpisodeArrays]:
        assert not explore  # a trial is of what is deployed
        on_episodes(len(seeds))
        succeeded = [self.outcomes[id(policy)][seed] for seed in seeds]
        outcomes = ["success" if success else "failure" for success in succeeded]
        return [dataclasses.replace(self.episode, outcome=outcome) for outcome in outcomes]


def tried(
    episode: EpisodeArrays, ours: Sequence[bool], theirs: Sequence[bool], *, judged: bool = True
) -> Trial:
    candidate, behaviour = object(), object()
    source = Fixed(episode, {id(candidate): ours, id(behaviour): theirs})
    return try_out(source, candidate, behaviour, range(len(ours)), judged=judged)  # type: ignore[arg-type]


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
    pairs = log["wins"] + log["losses"] + log["ties"]  # type: ignore[operator]
    assert len(trial.episodes) == 2 * pairs
    assert log["env_steps"] == len(trial.episodes) * len(episode)


def test_a_clear_difference_ends_it_early(episode: EpisodeArrays) -> None:
    always, never = [True] * COUNT, [False] * COUNT
    for ours, theirs, verdict in ((never, always, "worse"), (always, never, "better")):
        trial = tried(episode, ours, theirs)
        assert trial.log["verdict"] == verdict and trial.adopted is (verdict == "better")
        assert len(trial.episodes) == 2 * BATCH < 2 * COUNT
        assert trial.log["candidate_success"] == float(verdict == "better")


def test_no_change_is_not_tried(episode: EpisodeArrays) -> None:
    policy = make_policy(REACH_SPEC, load_config(None, ["model.widths=[16]"]))
    other = make_policy(REACH_SPEC, load_config(None, ["model.widths=[16]", "run.seed=1"]))

    def result(candidate: DiffusionPolicy, seeds: range, judged: bool) -> Trial:
        source = Fixed(episode, {id(policy): [True] * COUNT, id(other): [True] * COUNT})
        return trial_result(source, candidate, policy, seeds, lambda *_: None, judged=judged)  # type: ignore[arg-type]

    same = result(policy, range(3), True)
    assert not same.adopted and same.as_dict()["env_steps"] == 0
    assert result(other, range(3), True).adopted
    for judged in (True, False):  # no trial was asked for: the gate decides
        assert result(other, range(0), judged).adopted is judged
