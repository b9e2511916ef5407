"""Writing an episode so that a crash at any point leaves either nothing or the whole of it."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from rl100_contracts.bundle import sha256_file
from rl100_contracts.decode import peek_stamp_ns
from rl100_contracts.episode import (
    EPISODE_ID,
    INFO_FILE,
    PARTIAL,
    TASK_FILE,
    EpisodeInfo,
    Outcome,
    TopicAudit,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import ensure_type, has_header
from rl100_contracts.loading import sync, write_json_atomic, write_text_atomic
from rl100_contracts.streams import Role, Stream
from rl100_contracts.task import NANOSECONDS, Task


@dataclass
class _Counter:
    """Running audit of one topic."""

    received: int = 0
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_ns: int = 0
    repeated: int = 0
    unstamped: int = 0

    def count(self, stamp_ns: int) -> None:
        if stamp_ns <= 0:
            # A publisher that leaves the header empty must not stretch the episode to 1970.
            self.unstamped += 1
        elif self.received == self.unstamped:
            self.first_ns = stamp_ns
        elif stamp_ns <= self.last_ns:
            self.repeated += 1
        else:
            self.longest_gap_ns = max(self.longest_gap_ns, stamp_ns - self.last_ns)
        self.last_ns = max(self.last_ns, stamp_ns)
        self.received += 1

    def longest_gap(self, start_ns: int, end_ns: int) -> int:
        """Longest time without a message between two stamps, ns."""
        if not self.first_ns:
            return max(end_ns - start_ns, 0)
        return max(self.longest_gap_ns, self.first_ns - start_ns, end_ns - self.last_ns)


@dataclass
class EpisodeWriter:
    """Writes the raw messages of one episode.

    Args:
        data: folder of episodes; created when missing.
        episode_id: name of the episode.
        task: the contract; its streams are what may be written.

    Raises:
        ContractError: the name is not a plain file name, the episode exists already (recorded
            episodes are never rewritten), a stream's type has no header or is unknown, or the
            folder cannot be written.
    """

    data: Path
    episode_id: str
    task: Task
    note: str = ""
    seed: int | None = None
    _counters: dict[str, _Counter] = field(default_factory=dict)
    _connections: dict[str, Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(EPISODE_ID, self.episode_id) or len(self.episode_id) > 128:
            raise ContractError(
                f"'{self.episode_id}' cannot name an episode: use up to 128 letters, digits, "
                "'_', '-' and '.', and start with a letter or digit"
            )
        self.final = self.data / self.episode_id
        self.partial = self.data / PARTIAL / self.episode_id
        if self.final.exists() or self.partial.exists():
            raise ContractError(
                f"{self.final if self.final.exists() else self.partial}: this episode exists "
                "already and is never overwritten; choose another name"
            )
        # Before anything is on the disc: what cannot be recorded is refused, not left half begun.
        for name, stream in self.task.streams.items():
            if not has_header(stream.type):
                raise ContractError(
                    f"stream '{name}' ({stream.topic}) has type {stream.type}, which does not "
                    "start with a header: only stamped messages can be recorded"
                )
        self._writer = Writer(self.partial, version=9, storage_plugin=StoragePlugin.MCAP)
        try:
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            self._writer.open()
        except OSError as error:
            raise ContractError(f"{self.data}: cannot be written ({error.strerror})") from None
        for name, stream in self.task.streams.items():
            self._counters[name] = _Counter()
            self._connections[name] = self._writer.add_connection(
                stream.topic,
                stream.type,
                typestore=ensure_type(stream.type),
                offered_qos_profiles=[_qos(stream)],
            )

    def write(self, stream: str, received_ns: int, data: bytes) -> int:
        """Append one serialized message; returns its header stamp, ns.

        Raises:
            ContractError: the disc is full or gone; the episode so far stays in ``partial``.
        """
        stamp_ns = peek_stamp_ns(data)
        try:
            self._writer.write(self._connections[stream], received_ns, data)
        except OSError as error:
            raise ContractError(f"{self.partial}: cannot be written ({error.strerror})") from None
        self._counters[stream].count(stamp_ns)
        return stamp_ns

    def last_stamp_ns(self, stream: str) -> int:
        """Newest header stamp written of a stream, ns; 0 before the first."""
        return self._counters[stream].last_ns

    def received(self, stream: str) -> int:
        """Messages written of a stream."""
        return self._counters[stream].received

    def audit(self) -> dict[str, TopicAudit]:
        """Completeness of each topic so far."""
        start, end = self._bounds()
        result = {}
        for name, counter in self._counters.items():
            stream = self.task.streams[name]
            expected = None
            if stream.rate_hz is not None and end > start:
                expected = round((end - start) / NANOSECONDS * stream.rate_hz)
            result[stream.topic] = TopicAudit(
                received=counter.received,
                expected=expected,
                longest_gap_s=self._gap_ns(stream, counter, start, end) / NANOSECONDS,
                repeated=counter.repeated,
            )
        return result

    @staticmethod
    def _gap_ns(stream: Stream, counter: _Counter, start: int, end: int) -> int:
        """Longest gap; at both ends of the episode only for streams that should always come."""
        if stream.rate_hz is None or stream.role is Role.EVENT:
            return counter.longest_gap_ns
        return counter.longest_gap(start, end)

    def _bounds(self) -> tuple[int, int]:
        counted = [
            counter
            for name, counter in self._counters.items()
            if counter.first_ns and self.task.streams[name].role is not Role.EVENT
        ]
        if not counted:
            return 0, 0
        return min(c.first_ns for c in counted), max(c.last_ns for c in counted)

    def _problem(self, name: str, audit: TopicAudit) -> str:
        stream, rules = self.task.streams[name], self.task.episode
        if not stream.required or stream.role is Role.EVENT:
            return ""
        if audit.received == 0:
            return f"no message on {stream.topic}"
        if unstamped := self._counters[name].unstamped:
            return f"{stream.topic}: {unstamped} messages without a stamp in their header"
        if audit.expected and audit.received < audit.expected * (1 - rules.max_missing_fraction):
            return f"{stream.topic}: {audit.received} of {audit.expected} messages"
        if audit.longest_gap_s > rules.max_gap_s:
            return f"{stream.topic}: a gap of {audit.longest_gap_s:.2f} s"
        return ""

    def finish(
        self,
        outcome: Outcome,
        labeller: str,
        steps: int,
        policy_version: str = "",
        source: str = "",
        label_ns: int | None = None,
    ) -> EpisodeInfo:
        """Close the bag, write its description and rename the episode into place.

        Raises:
            ContractError: the disc is full or gone.
        """
        start, end = self._bounds()
        audit = self.audit()
        problems = [
            problem
            for name, stream in self.task.streams.items()
            if (problem := self._problem(name, audit[stream.topic]))
        ]
        try:
            self._writer.close()
            bag = next(self.partial.glob("*.mcap"))
            info = EpisodeInfo(
                episode_id=self.episode_id,
                task=self.task.name,
                task_hash=self.task.hash,
                outcome=outcome,
                labeller=labeller,
                label_ns=label_ns,
                policy_version=policy_version,
                source=source,
                start_ns=start,
                end_ns=end,
                steps=steps,
                seed=self.seed,
                note=self.note,
                complete=not problems,
                problems=problems,
                audit=audit,
                bag_file=bag.name,
                bag_bytes=bag.stat().st_size,
                bag_sha256=sha256_file(bag),
            )
            write_text_atomic(self.partial / TASK_FILE, self.task.to_yaml())
            write_json_atomic(self.partial / INFO_FILE, info.model_dump(mode="json"))
            for path in (bag, self.partial / "metadata.yaml", self.partial):
                sync(path)
            os.rename(self.partial, self.final)
            sync(self.data)
        except OSError as error:
            self.abandon()
            raise ContractError(f"{self.partial}: cannot be finished ({error.strerror})") from None
        return info

    def discard(self) -> None:
        """Close and delete the episode in progress (a person asked for it)."""
        self.abandon()
        shutil.rmtree(self.partial, ignore_errors=True)

    def abandon(self) -> None:
        """Close the files of an episode that cannot be finished; it stays in ``partial``."""
        with suppress(OSError, ValueError):  # a full disc refuses the last bytes once more
            self._writer.abort()


def _qos(stream: Stream) -> Qos:
    """What a player of the bag should offer, so that the task's subscribers match it."""
    reliable = stream.qos == "reliable"
    never = QosTime(9223372036, 854775807)  # rosbag2's "infinite"
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        avoid_ros_namespace_conventions=False,
    )
