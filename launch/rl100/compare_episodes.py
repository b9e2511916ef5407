"""``rl100 episodes compare``: is a new policy better than the old one, by their recorded episodes?

The sequential test of the learner's trials, for robots whose rollouts are recorded by people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rl100_contracts.bundle import MANIFEST, load_manifest
from rl100_contracts.episode import EpisodeInfo, Outcome, list_episodes, load_episode_info
from rl100_contracts.errors import ContractError
from rl100_trainer.rl.sequential import SequentialTest

LABELLED = (Outcome.SUCCESS, Outcome.FAILURE)


def policy_version_of(name: str) -> str:
    """Version of the policy of a run's folder, of a bundle, or the version itself.

    Raises:
        ContractError: a folder that holds no bundle.
    """
    for folder in (Path(name), Path(name) / "bundle"):
        if (folder / MANIFEST).is_file():
            return load_manifest(folder).policy_version
    if "/" in name and not Path(name).exists():
        raise ContractError(f"{name}: no such folder: give a bundle, a run, or a policy's version")
    if Path(name).exists():
        raise ContractError(f"{name}: holds no bundle: give a bundle, or the folder of a run")
    return name


def labelled_episodes(folders: Iterable[Path]) -> list[EpisodeInfo]:
    """Descriptions of all episodes with a verdict, in the order in which they were recorded.

    Raises:
        ContractError: a folder is missing, or an episode's description is damaged.
    """
    paths = dict.fromkeys(path.resolve() for folder in folders for path in list_episodes(folder))
    infos = [load_episode_info(path) for path in paths]
    return sorted((i for i in infos if i.outcome in LABELLED), key=lambda i: i.start_ns)


@dataclass(frozen=True)
class Comparison:
    """What the pairs say.

    Attributes:
        test: after all pairs up to its verdict or limit.
        successes, episodes: of candidate and behaviour policy, all that were recorded.
    """

    test: SequentialTest
    successes: tuple[int, int]
    episodes: tuple[int, int]

    def sentence(self) -> str:
        """The verdict and what follows from it."""
        test = self.test
        pairs = f"{test.wins} won, {test.losses} lost, {test.ties} alike of {test.pairs} pairs"
        if test.verdict == "better":
            return f"better ({pairs}): go on with it"
        if test.verdict == "worse":
            return f"worse ({pairs}): stay with the old one"
        if not test.finished:
            return (
                f"no verdict yet ({pairs}): record more of both; {test.limit - test.pairs} pairs "
                "more end the trial in any case"
            )
        if test.adopt():
            return f"no worse ({pairs}): go on with it"
        return f"not better ({pairs}): stay with the old one"


def compare(infos: Sequence[EpisodeInfo], candidate: str, behaviour: str, limit: int) -> Comparison:
    """Pair the episodes of two policies by the order in which they were recorded.

    Args:
        candidate, behaviour: policy versions.
        limit: pairs after which the trial is over.

    Raises:
        ContractError: they are the same, or one of them has no episode.
    """
    if candidate == behaviour:
        raise ContractError(f"{candidate} is compared with itself: give two different policies")
    outcomes = []
    for version in (candidate, behaviour):
        own = [info.outcome is Outcome.SUCCESS for info in infos if info.policy_version == version]
        if not own:
            there = sorted({info.policy_version for info in infos} - {""})
            raise ContractError(
                f"no episode with a verdict was recorded with the policy {version}, only "
                + (f"with {', '.join(there)}" if there else "demonstrations")
            )
        outcomes.append(own)
    test = SequentialTest(limit=limit)
    for ours, theirs in zip(*outcomes, strict=False):
        if test.finished:
            break
        test.update(ours, theirs)
    first, second = outcomes
    return Comparison(test, (sum(first), sum(second)), (len(first), len(second)))
