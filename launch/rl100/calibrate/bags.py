"""Messages of a recorded bag, whoever recorded it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import typestore


def is_bag(path: Path) -> bool:
    """Whether a path is a rosbag2 bag: its folder, or its file."""
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def bag_messages(path: Path, topics: list[str]) -> Iterator[tuple[str, Any]]:
    """(topic, message) in the order of recording.

    Raises:
        ContractError: the bag cannot be read.
    """
    from rosbags.highlevel import AnyReader

    try:
        with AnyReader([path], default_typestore=typestore()) as reader:
            found = [c for c in reader.connections if c.topic in topics]
            if not found:
                known = ", ".join(sorted({c.topic for c in reader.connections})) or "nothing"
                raise ContractError(f"{path}: has none of {', '.join(topics)}; it has {known}")
            for connection, _, data in reader.messages(found):
                yield connection.topic, reader.deserialize(data, connection.msgtype)
    except (ContractError, GeneratorExit):
        raise
    except Exception as error:  # damaged bytes raise many kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ContractError(f"{path}: the bag cannot be read ({reason})") from None
