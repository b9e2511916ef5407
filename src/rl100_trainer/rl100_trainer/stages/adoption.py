"""The short trial in the real task that a policy must pass before it is adopted.

The candidate is rolled out like every policy, with exploration noise and on start states that
nothing was learnt from, and compared with the rollouts that the policy in its way has already. So a
trial costs no more than the candidate's episodes, and these are data of the next iteration.
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
class RolledOut:
    """A policy and what it has done so far with the stochastic chain.

    Attributes:
        episodes: in the order in which they were run; one for each of ``starts``, their seeds.
    """

    policy: DiffusionPolicy
    starts: Sequence[int] = ()
    episodes: Sequence[EpisodeArrays] = ()

    @property
    def success(self) -> list[bool]:
        """Of each episode."""
        return [episode.outcome == "success" for episode in self.episodes]


@dataclass(frozen=True)
class Trial:
    """What a trial came to.

    Attributes:
        adopted: the candidate takes the behaviour policy's place.
        episodes: the candidate's.
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
    behaviour: Sequence[bool],
    seeds: Sequence[int],
    on_episodes: Callable[[int, int], None] = lambda done, total: None,
    *,
    judged: bool = True,
) -> Trial:
    """Roll the candidate out until its start states are used up or it is clearly worse.

    Its episodes and the behaviour policy's are compared pair by pair, in their order. The candidate
    is adopted if it is better; without a verdict, if it won as often as it lost, or, where nothing
    has ``judged`` it before, more often.

    Args:
        behaviour: whether each rollout of the policy in its way succeeded, one at least.
        seeds: of the candidate's episodes.
        on_episodes: told how many episodes are done, of how many at most; may raise to stop.
        judged: whether the gate has let the candidate pass.

    Raises:
        ValueError: no seeds, or no rollout to compare with.
    """
    test = SequentialTest(limit=min(len(seeds), len(behaviour)))
    episodes: list[EpisodeArrays] = []
    on_episodes(0, len(seeds))
    while len(episodes) < len(seeds) and test.verdict != "worse":

        def on_ended(ended: int, done: int = len(episodes)) -> None:
            on_episodes(done + ended, len(seeds))

        done = len(episodes)
        episodes += source.collect(candidate, seeds[done : done + BATCH], on_ended)
        for ours, theirs in zip(episodes[done:], behaviour[done:], strict=False):
            test.update(ours.outcome == "success", theirs)
    pairs = test.pairs
    log: dict[str, float | str] = {
        "candidate_success": sum(e.outcome == "success" for e in episodes[:pairs]) / pairs,
        "behaviour_success": sum(behaviour[:pairs]) / pairs,
        **test.as_dict(),
    }
    adopted = test.adopt() and (judged or test.wins > test.losses)
    return Trial(adopted, episodes, log)


def trial_result(
    source: RolloutSource,
    candidate: DiffusionPolicy,
    behaviour: RolledOut,
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
    ours, theirs = candidate.state_dict(), behaviour.policy.state_dict()
    if all(torch.equal(ours[name], theirs[name]) for name in ours):
        return Trial(False, log={"verdict": "nothing to try: no change"})
    return try_out(source, candidate, behaviour.success, seeds, on_episodes, judged=judged)
