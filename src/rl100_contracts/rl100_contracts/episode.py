"""The episode contract: one recorded episode is one rosbag2 MCAP bag with a description beside it.

    <data>/<episode_id>/<episode_id>.mcap   raw messages as they came
    <data>/<episode_id>/metadata.yaml       rosbag2's description
    <data>/<episode_id>/episode.json        EpisodeInfo
    <data>/<episode_id>/task.yaml           the task that it was recorded with
    <data>/.partial/<episode_id>/           an episode being written, renamed when complete

The directory of an episode is a bag by itself: ``ros2 bag info <data>/<episode_id>`` works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from rl100_contracts.bundle import sha256_file
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import typestore
from rl100_contracts.loading import StrictModel, load_json_model
from rl100_contracts.streams import Role
from rl100_contracts.task import Task

PARTIAL = ".partial"
INFO_FILE = "episode.json"
TASK_FILE = "task.yaml"
EPISODE_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Outcome(str, Enum):
    """Verdict on an episode."""

    UNKNOWN = "unknown"
    SUCCESS = "success"
    FAILURE = "failure"
    DISCARDED = "discarded"


class TopicAudit(StrictModel):
    """How completely one topic was recorded."""

    received: int = Field(ge=0)
    expected: int | None = Field(None, description="from the nominal rate; None: irregular topic")
    longest_gap_s: float = Field(
        0.0, ge=0, description="between header stamps, from the episode's start to its end"
    )
    repeated: int = Field(0, ge=0, description="messages whose stamp did not advance")


class EpisodeInfo(StrictModel):
    """What is known of a recorded episode."""

    format_version: Literal[1] = 1
    episode_id: Annotated[str, Field(pattern=EPISODE_ID, max_length=128)]
    task: str
    task_hash: str
    outcome: Outcome
    labeller: str = ""
    label_ns: int | None = Field(None, description="stamp of the verdict; None: nobody gave one")
    policy_version: str = Field("", description="bundle that acted; empty: teleoperation")
    source: str = Field("", description="who acted most, e.g. policy, scripted, keyboard")
    start_ns: int = Field(ge=0, description="first header stamp")
    end_ns: int = Field(ge=0, description="last header stamp")
    steps: int = Field(ge=0, description="executed control ticks")
    seed: int | None = Field(None, description="of a simulated episode")
    note: str = ""
    complete: bool = Field(True, description="the audit passed")
    problems: list[str] = Field(default_factory=list)
    audit: dict[str, TopicAudit]
    bag_file: str
    bag_bytes: int = Field(ge=0)
    bag_sha256: str = Field("", description="of the bag, hex; checked by check_episode")

    @property
    def duration_s(self) -> float:
        """Duration in header stamps, s."""
        return (self.end_ns - self.start_ns) * 1e-9


def load_episode_info(path: Path) -> EpisodeInfo:
    """Description of the episode in directory ``path``; raises ContractError."""
    if not (path / INFO_FILE).is_file():
        why = f"it has no {INFO_FILE}" if path.is_dir() else "there is no such folder"
        raise ContractError(f"{path}: is no recorded episode: {why}")
    info = load_json_model(EpisodeInfo, path / INFO_FILE)
    if os.sep in info.bag_file or info.bag_file.startswith("."):
        raise ContractError(f"{path / INFO_FILE}: bag_file must be a file name in the same folder")
    return info


def list_episodes(data: Path) -> list[Path]:
    """Episode directories below ``data`` (or ``data`` itself), in the order of their names.

    Raises:
        ContractError: the folder is missing.
    """
    if not data.is_dir():
        raise ContractError(f"{data}: no such folder of episodes")
    if (data / INFO_FILE).is_file():
        return [data]
    return sorted(entry.parent for entry in data.glob(f"*/{INFO_FILE}"))


def unfinished_episodes(data: Path) -> list[Path]:
    """Episodes that a crash cut off while they were being recorded."""
    folder = data / PARTIAL
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


class EpisodeReader:
    """Reads one episode. Use as a context manager.

    Raises:
        ContractError: on entry, one sentence when a file is missing, cut off or damaged, or when
            the episode belongs to another task.
    """

    def __init__(self, path: Path, task: Task | None = None) -> None:
        self.path = Path(path)
        self.info = load_episode_info(self.path)
        self._task = task
        self._reader: AnyReader | None = None

    def __enter__(self) -> EpisodeReader:
        task, info = self._task, self.info
        if task is not None and info.task != task.name:
            raise ContractError(
                f"{self.path}: recorded for task '{info.task}', not for '{task.name}'"
            )
        bag = self.path / info.bag_file
        try:
            size = bag.stat().st_size
        except OSError:
            raise ContractError(f"{bag}: the bag of the episode is missing") from None
        if size != info.bag_bytes:
            raise ContractError(
                f"{bag}: the bag is damaged (cut off?): {size} bytes instead of {info.bag_bytes}"
            )
        try:
            self._reader = AnyReader([self.path], default_typestore=typestore())
            self._reader.open()
        except Exception as error:  # damaged bytes raise many kinds of errors
            self._reader = None
            raise ContractError(f"{bag}: the bag cannot be read ({_reason(error)})") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _connections(self, topics: list[str] | None) -> list[Connection]:
        assert self._reader is not None, "use EpisodeReader in a with statement"
        return [c for c in self._reader.connections if topics is None or c.topic in topics]

    def raw(self, topics: list[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, type, receive time ns, serialized message) in the order of recording.

        Raises:
            ContractError: the bag is damaged.
        """
        assert self._reader is not None, "use EpisodeReader in a with statement"
        connections = self._connections(topics)
        if not connections:
            return
        try:
            for connection, stamp, data in self._reader.messages(connections):
                yield connection.topic, connection.msgtype, stamp, data
        except ContractError:
            raise
        except Exception as error:  # whatever the parser meets in damaged bytes
            raise ContractError(f"{self.path}: the bag is damaged ({_reason(error)})") from None

    def messages(self, streams: list[str] | None = None) -> Iterator[tuple[str, Any]]:
        """(stream name, deserialised message) of the task's streams in the order of recording.

        Raises:
            ContractError: no task was given, or the bag is damaged.
        """
        if self._task is None:
            raise ContractError(f"{self.path}: a task is needed to name the streams")
        names = {
            stream.topic: name
            for name, stream in self._task.streams.items()
            if streams is None or name in streams
        }
        assert self._reader is not None, "use EpisodeReader in a with statement"
        for topic, msgtype, _, data in self.raw(list(names)):
            try:
                # By the definitions in the bag: older bags stay readable when a message grows,
                # and no sourced workspace is needed.
                message = self._reader.deserialize(data, msgtype)
            except Exception as error:  # damaged bytes raise many kinds of errors
                raise ContractError(
                    f"{self.path}: a message on {topic} is damaged ({_reason(error)})"
                ) from None
            yield names[topic], message


def check_bag(path: Path, info: EpisodeInfo) -> None:
    """Raise ContractError when the bag of the episode is not bit for bit what was recorded."""
    bag = path / info.bag_file
    if info.bag_sha256 and sha256_file(bag) != info.bag_sha256:
        raise ContractError(f"{bag}: the bag is damaged (its bytes have changed)")


def check_episode(path: Path, task: Task | None = None) -> EpisodeInfo:
    """Read a whole episode: its bag must be bit for bit what was recorded.

    Raises:
        ContractError: one sentence on the first thing that is missing or damaged, or when it was
            recorded for another task.
    """
    with EpisodeReader(path, task) as reader:
        info = reader.info
        bag = path / info.bag_file
        check_bag(path, info)
        found = dict.fromkeys(info.audit, 0)
        for topic, _, _, _ in reader.raw():
            found[topic] = found.get(topic, 0) + 1
    for topic, count in found.items():
        expected = info.audit[topic].received if topic in info.audit else 0
        if count != expected:
            raise ContractError(
                f"{bag}: the bag is damaged: {count} messages on {topic} instead of {expected}"
            )
    return info


def _reason(error: Exception) -> str:
    """What a parser's exception says, or its kind when it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def required_topics(task: Task) -> list[str]:
    """Topics without which an episode of the task is not complete."""
    return [s.topic for s in task.streams.values() if s.required and s.role is not Role.EVENT]
