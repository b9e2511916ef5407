"""From recorded bags to episodes as arrays, with a cache that is never in the data directory.

An executed action belongs to the observation that a policy would have decided on for it: the
newest one at its stamp plus the task's action latency (see the policy's chunks). Ticks in which the
gateway held are no actions of anybody and are left out; so are those from the verdict on, whose
effect nobody saw.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.bundle import sha256_file
from rl100_contracts.decode import ExecutedStep, decode, decode_executed, message_stamp_ns
from rl100_contracts.episode import (
    EpisodeInfo,
    EpisodeReader,
    Outcome,
    check_bag,
    list_episodes,
    load_episode_info,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import ObservationAssembler, ObservationError, observed_streams
from rl100_contracts.rewards import step_rewards
from rl100_contracts.task import NANOSECONDS, Task
from rl100_trainer.data.dataset import (
    MODE_POLICY,
    MODE_TAKEOVER,
    MODE_TELEOP,
    EpisodeArrays,
    segments,
    stack_observations,
)
from rl100_trainer.data.store import load_episodes, save_episodes

CACHE_FORMAT = 3
POLICY_STEP = "rl100_msgs/msg/PolicyStep"
ACTING = (MODE_TELEOP, MODE_POLICY, MODE_TAKEOVER)
OLDEST_FRAME_PERIODS = 2  # an action without a frame that is as fresh as this is left out

FloatArray = NDArray[np.float32]
OnEpisode = Callable[[int, int], None]


@dataclass
class DataReport:
    """What was used of the data, and one sentence on each episode that wasn't."""

    used: int = 0
    filtered: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RecordedChain:
    """The denoising chain of a decision: samples (K + 1, h, d) and log-probs (K,), nats."""

    samples: FloatArray
    log_probs: FloatArray


def recorded_chain(path: Path, message: Any) -> RecordedChain:
    """A PolicyStep message as arrays.

    Raises:
        ContractError: its sizes contradict each other.
    """
    shape = (int(message.denoising_steps) + 1, int(message.horizon), int(message.action_dim))
    samples = np.asarray(message.chain, dtype=np.float32)
    log_probs = np.asarray(message.log_probs, dtype=np.float32)
    if samples.size != np.prod(shape) or log_probs.size != shape[0] - 1:
        raise ContractError(
            f"{path}: the denoising chain of decision {message.sequence} has {samples.size} values "
            f"and {log_probs.size} log-probabilities, which do not fit its shape {shape}"
        )
    return RecordedChain(samples.reshape(shape), log_probs)


def default_cache() -> Path:
    """Where decoded episodes are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rl100" / "episodes"


def read_episode(path: Path, task: Task) -> EpisodeArrays:
    """Decode one episode from its bag.

    Raises:
        ContractError: the bag is missing, cut off or damaged, is of another task, or holds no
            executed action with an observation.
    """
    assembler = ObservationAssembler(task, keep_s=None)
    executed: dict[int, ExecutedStep] = {}
    chains: dict[int, RecordedChain] = {}
    chain_streams = [name for name, stream in task.streams.items() if stream.type == POLICY_STEP]
    wanted = [*observed_streams(task), task.action_stream, *chain_streams]
    with EpisodeReader(path, task) as reader:
        info = reader.info
        check_bag(path, info)  # a changed byte may still be a message
        for name, message in reader.messages(wanted):
            if name in chain_streams:
                chains[int(message.sequence)] = recorded_chain(path, message)
            elif name == task.action_stream:
                step = decode_executed(message)
                judged = info.label_ns is not None and step.stamp_ns >= info.label_ns
                if not judged and not step.hold and step.mode in ACTING:
                    executed[step.stamp_ns] = step
            else:
                try:
                    assembler.add(name, message_stamp_ns(message), decode(task, name, message))
                except ContractError as error:
                    raise ContractError(f"{path}: {error}") from None
    return _assemble(path, info, task, assembler, [executed[s] for s in sorted(executed)], chains)


def _assemble(
    path: Path,
    info: EpisodeInfo,
    task: Task,
    assembler: ObservationAssembler,
    executed: Sequence[ExecutedStep],
    chains: dict[int, RecordedChain],
) -> EpisodeArrays:
    frames = assembler.frame_stamps()
    latency = round(task.latency.action_s * NANOSECONDS)
    oldest = OLDEST_FRAME_PERIODS * task.control.period_ns
    seen, steps = [], []
    for step in executed:
        if step.action.shape != (task.action.dim,) or not np.isfinite(step.action).all():
            raise ContractError(
                f"{path}: an executed action is not {task.action.dim} finite values, as task "
                f"'{task.name}' asks for"
            )
        wanted = step.stamp_ns + latency
        index = bisect_right(frames, wanted) - 1
        if index < 0 or wanted - frames[index] > oldest:
            continue
        try:
            seen.append(assembler.observe(frames[index]))
        except ObservationError:
            continue
        steps.append(step)
    if not steps:
        raise ContractError(f"{path}: holds no executed action with an observation")
    stamps = np.array([step.stamp_ns for step in steps], dtype=np.int64)
    actions = np.stack([step.action for step in steps])
    # Not where an action is its chunk's first: that one may have come too late to be executed.
    before = [None, *(step.chunk_sequence for step in steps[:-1])]
    decision = np.array(
        [
            step.chunk_index == 0 or last not in (None, step.chunk_sequence)
            for last, step in zip(before, steps, strict=True)
        ],
        dtype=np.bool_,
    )
    sequences = [step.chunk_sequence for step, new in zip(steps, decision, strict=True) if new]
    known = bool(sequences) and all(sequence in chains for sequence in sequences)
    return EpisodeArrays(
        episode_id=info.episode_id,
        **stack_observations(seen),
        actions=actions,
        stamps=stamps,
        segment=segments(stamps, task.control.period_ns),
        decision=decision,
        mode=np.array([step.mode for step in steps], dtype=np.uint8),
        rewards=step_rewards(task, actions, info.outcome is Outcome.SUCCESS),
        outcome=info.outcome.value,
        source=info.policy_version or info.source,
        chains=np.stack([chains[s].samples for s in sequences]) if known else None,
        log_probs=np.stack([chains[s].log_probs for s in sequences]) if known else None,
    )


class EpisodeCache:
    """Decoded episodes as .npz files, found by the hashes of bag, verdict and task."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, path: Path, task: Task) -> EpisodeArrays:
        """The episode, from the cache when it is there; raises ContractError as read_episode."""
        info = load_episode_info(path)
        bag = path / info.bag_file
        if self.folder is None or not bag.is_file() or bag.stat().st_size != info.bag_bytes:
            return read_episode(path, task)  # which also says what is wrong with the bag
        digest = sha256_file(bag)
        if info.bag_sha256 not in ("", digest):
            return read_episode(path, task)
        about = f"{CACHE_FORMAT} {info.episode_id} {info.outcome.value} {info.policy_version}"
        name = hashlib.sha256(f"{about} {digest} {task.hash}".encode())
        file = self.folder / f"{name.hexdigest()}.npz"
        try:
            return load_episodes(file)[0]
        except ContractError:
            episode = read_episode(path, task)  # absent or damaged: read the bag again
        # A full or read-only disc costs time the next time, nothing else.
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_episodes(file, [episode])
        return episode


def _why_not(info: EpisodeInfo, task: Task, other_versions: bool) -> str:
    """Why an episode isn't fit for training; empty when it is."""
    if info.task != task.name:
        return f"recorded for task '{info.task}', not for '{task.name}'"
    if info.task_hash != task.hash and not other_versions:
        return (
            f"recorded with another version of task '{task.name}'; add --other-task-versions to "
            "use it all the same"
        )
    if not info.complete:
        return f"its recording is incomplete ({info.problems[0] if info.problems else 'see audit'})"
    return ""


def read_episodes(
    folders: Iterable[Path],
    task: Task,
    outcomes: Sequence[str],
    *,
    cache: Path | None = None,
    strict: bool = False,
    other_versions: bool = False,
    on_episode: OnEpisode = lambda done, total: None,
) -> tuple[list[EpisodeArrays], DataReport]:
    """Read all episodes of several folders with one of ``outcomes``.

    Args:
        cache: folder of decoded episodes; None: no cache.
        strict: an unusable episode is an error instead of being skipped.
        other_versions: also use episodes that another version of the task's contract recorded.
        on_episode: told how many episodes are done, of how many.

    Raises:
        ContractError: a folder is missing, no episode is left, or (strict) one is unusable.
    """
    folders = list(folders)
    paths = list(dict.fromkeys(p.resolve() for folder in folders for p in list_episodes(folder)))
    report, store, episodes = DataReport(), EpisodeCache(cache), []
    for number, path in enumerate(paths):
        on_episode(number, len(paths))
        try:
            info = load_episode_info(path)
            if info.outcome is Outcome.DISCARDED or info.outcome.value not in outcomes:
                report.filtered += 1
                continue
            reason = _why_not(info, task, other_versions)
            if reason:
                raise ContractError(f"{path}: {reason}")
            episodes.append(store.read(path, task))
        except ContractError as error:
            if strict:
                raise
            report.skipped.append(str(error))
    on_episode(len(paths), len(paths))
    report.used = len(episodes)
    if not episodes:
        where = ", ".join(str(folder) for folder in folders)
        why = f" (the first one: {report.skipped[0]})" if report.skipped else ""
        raise ContractError(
            f"{where}: no episode to train on: {len(paths)} found, {report.filtered} with another "
            f"outcome than {' or '.join(outcomes)}, {len(report.skipped)} unusable{why}"
        )
    return episodes, report
