"""The short trial in the real task that a policy must pass before it is adopted.

The candidate and the policy in its way run as deployed, without exploration noise, from the same
start states. What they do is recorded: their episodes are data of the next iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.sequential import SequentialTest
from rl100_trainer.rollouts.source import RolloutSource

BATCH = 50  # episodes between two looks


@dataclass(frozen=True)
class Trial:
    """What a trial came to.

    Attributes:
        adopted: the candidate takes the behaviour policy's place.
        episodes: of both policies.
        log: for ``steps.json``: success rates over the pairs, control steps, counts and evidence.
    """

    adopted: bool
    episodes: Sequence[EpisodeArrays] = ()
    log: dict[str, float | str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float | str | bool]:
        """For logs and JSON."""
        steps = sum(len(episode) for episode in self.episodes)
        return {"adopted": self.adopted, "env_steps": steps, **self.log}


def try_out(
    source: RolloutSource,
    candidate: DiffusionPolicy,
    behaviour: DiffusionPolicy,
    seeds: Sequence[int],
    on_episodes: Callable[[int, int], None] = lambda done, total: None,
    *,
    judged: bool = True,
) -> Trial:
    """Run both policies from the same starts until a sequential test has a verdict.

    The candidate is adopted if it is better; without a verdict, if it won as often as it lost, or,
    where nothing has ``judged`` it before, more often.

    Args:
        seeds: at most so many pairs; where starts cannot be chosen, the pairs are by order.
        on_episodes: told how many are done, of how many at most; may raise to stop.
        judged: whether the gate has let the candidate pass.

    Raises:
        ValueError: no seeds.
    """
    test = SequentialTest(limit=len(seeds))
    episodes: list[EpisodeArrays] = []
    on_episodes(0, 2 * len(seeds))

    def run(policy: DiffusionPolicy) -> list[bool]:
        some, done = seeds[test.pairs : test.pairs + BATCH], len(episodes)
        new = source.collect(
            policy, some, lambda ended: on_episodes(done + ended, 2 * len(seeds)), explore=False
        )
        episodes.extend(new)
        return [episode.outcome == "success" for episode in new]

    successes = [0, 0]  # of the candidate and of the behaviour policy; wins are where they differ
    while not test.finished:
        ours, theirs = run(candidate), run(behaviour)
        for one, other in zip(ours, theirs, strict=True):
            test.update(one, other)
        successes = [successes[0] + sum(ours), successes[1] + sum(theirs)]
    log: dict[str, float | str] = {
        "candidate_success": successes[0] / test.pairs,
        "behaviour_success": successes[1] / test.pairs,
        **test.as_dict(),
    }
    adopted = test.adopt() and (judged or test.wins > test.losses)
    return Trial(adopted, episodes, log)


def trial_result(
    source: RolloutSource,
    candidate: DiffusionPolicy,
    behaviour: DiffusionPolicy,
    seeds: Sequence[int],
    on_episodes: Callable[[int, int], None],
    *,
    judged: bool,
) -> Trial:
    """A trial where there is something to try.

    Args:
        judged: whether the gate has let the candidate pass; where no trial was asked for (no
            seeds), that decides.
    """
    if len(seeds) == 0:
        return Trial(judged, log={"verdict": "no trial was asked for"})
    ours, theirs = candidate.state_dict(), behaviour.state_dict()
    if all(torch.equal(ours[name], theirs[name]) for name in ours):
        return Trial(False, log={"verdict": "nothing to try: no change"})
    return try_out(source, candidate, behaviour, seeds, on_episodes, judged=judged)
