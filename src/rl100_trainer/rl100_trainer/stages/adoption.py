"""The short trial in the real task that a policy must pass before it is adopted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.sequential import SequentialTest
from rl100_trainer.rollouts.source import RolloutSource

BATCH = 50  # pairs between two looks


@dataclass(frozen=True)
class Adoption:
    """Result of a trial.

    Attributes:
        adopted: the candidate takes the behaviour policy's place.
        candidate, behaviour: success rates over the pairs.
        env_steps: control steps that the trial took.
        test: counts and evidence of the sequential test.
    """

    adopted: bool
    candidate: float
    behaviour: float
    env_steps: int
    test: dict[str, float | str]

    def as_dict(self) -> dict[str, float | str | bool]:
        """For logs and JSON."""
        return {
            "adopted": self.adopted,
            "candidate_success": self.candidate,
            "behaviour_success": self.behaviour,
            "env_steps": self.env_steps,
            **self.test,
        }


def try_out(
    source: RolloutSource,
    candidate: DiffusionPolicy,
    behaviour: DiffusionPolicy,
    seeds: Sequence[int],
    on_pair: Callable[[int, int], None] = lambda done, total: None,
    *,
    judged: bool = True,
) -> Adoption:
    """Run both policies from the same starts until a sequential test has a verdict.

    The candidate is adopted if it is better; without a verdict, if it won as often as it lost, or,
    where nothing has ``judged`` it before, more often.

    Args:
        seeds: at most so many pairs; where starts cannot be chosen, the pairs are by order.
        on_pair: told how many pairs are done, of how many at most; may raise to stop.
        judged: whether the gate has let the candidate pass.
    """
    test = SequentialTest(limit=len(seeds))
    wins, losses, steps, done = 0, 0, 0, 0
    while not test.finished:
        on_pair(done, len(seeds))
        some = seeds[done : done + BATCH]
        new = source.evaluate(candidate, "k_step", some)
        old = source.evaluate(behaviour, "k_step", some)
        for ours, theirs in zip(new.success.tolist(), old.success.tolist(), strict=True):
            test.update(ours, theirs)
        wins, losses = wins + int(new.success.sum()), losses + int(old.success.sum())
        steps, done = steps + int(new.steps.sum() + old.steps.sum()), done + len(some)
    adopted = test.adopt() and (judged or test.wins > test.losses)
    return Adoption(adopted, wins / done, losses / done, steps, test.as_dict())


def trial_result(
    source: RolloutSource,
    candidate: DiffusionPolicy,
    behaviour: DiffusionPolicy,
    seeds: Sequence[int],
    on_pair: Callable[[int, int], None],
    *,
    judged: bool,
) -> dict[str, float | str | bool]:
    """A trial where there is something to try, as a step's result.

    Args:
        judged: whether the gate has let the candidate pass; where no trial was asked for (no
            seeds), that decides.
    """
    if len(seeds) == 0:
        return {"adopted": judged, "verdict": "no trial was asked for", "env_steps": 0}
    ours, theirs = candidate.state_dict(), behaviour.state_dict()
    if all(torch.equal(ours[name], theirs[name]) for name in ours):
        return {"adopted": False, "verdict": "nothing to try: no change", "env_steps": 0}
    return try_out(source, candidate, behaviour, seeds, on_pair, judged=judged).as_dict()
