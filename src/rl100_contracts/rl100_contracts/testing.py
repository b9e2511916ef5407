"""For tests: episodes on the disc, and the messages in them."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rl100_contracts.episode import Outcome
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.task import NANOSECONDS, Task

PERIOD = NANOSECONDS // 20
START = 1_000 * NANOSECONDS
RATED = ("joint_states", "tool_pose", "points", "depth", "camera_info", "executed_action")


@contextmanager
def found_definitions(sources: Path, prefix: Path) -> Iterator[None]:
    """Have the definitions of rl100_msgs found as in a sourced workspace, built or not.

    Args:
        sources: the folder ``msg`` of that package.
        prefix: an empty folder for them.
    """
    shutil.copytree(sources, prefix / "share" / "rl100_msgs" / "msg")
    before = os.environ.get("AMENT_PREFIX_PATH", "")
    os.environ["AMENT_PREFIX_PATH"] = f"{prefix}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["AMENT_PREFIX_PATH"] = before


def make(msgtype: str, stamp_ns: int, **values: Any) -> bytes:
    """A serialized message of any type with a header; other fields from ``values``."""
    store = ensure_type(msgtype)

    def default(name: str) -> Any:
        fields: dict[str, Any] = {}
        for key, described in store.fielddefs[name][1]:
            kind: Any = described[0]
            detail: Any = described[1]
            if kind.name == "NAME":
                fields[key] = default(detail)
            elif kind.name == "BASE":
                fields[key] = "" if detail[0] == "string" else 0
            elif kind.name == "ARRAY":
                fields[key] = np.zeros(detail[1], dtype=detail[0][1][0])
            elif detail[0][0].name == "BASE" and detail[0][1][0] != "string":
                fields[key] = np.zeros(0, dtype=detail[0][1][0])
            else:
                fields[key] = []
        return store.types[name](**fields)

    message = default(msgtype)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
    for key, value in values.items():
        assert hasattr(message, key)
        setattr(message, key, value)
    return bytes(store.serialize_cdr(message, msgtype))


def header(stamp_ns: int, body: bytes = b"") -> bytes:
    """The start of any serialized message with a header, followed by arbitrary bytes."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return b"\x00\x01\x00\x00" + struct.pack("<iI", sec, nanosec) + body


def fill(writer: EpisodeWriter, ticks: int = 20, skip: tuple[str, ...] = ()) -> None:
    """Write a regular episode; ``skip`` names streams that stay silent."""
    for tick in range(ticks):
        for name in RATED:
            if name not in skip:
                stamp = START + tick * PERIOD
                writer.write(name, stamp + 5, make(writer.task.streams[name].type, stamp))


def record(data: Path, name: str, task: Task, ticks: int = 20) -> Path:
    """One complete episode on the disc."""
    writer = EpisodeWriter(data, name, task)
    fill(writer, ticks)
    writer.finish(Outcome.SUCCESS, "test", ticks)
    return data / name
