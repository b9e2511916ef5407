"""Message definitions for bags: the standard ones, and those of any sourced ROS package."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rl100_contracts.errors import ContractError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore


def _definition_file(msgtype: str) -> Path | None:
    """The .msg file of a type, looked up in AMENT_PREFIX_PATH."""
    package, _, name = msgtype.split("/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "share" / package / "msg" / f"{name}.msg"
        if prefix and path.is_file():
            return path
    return None


def _register(store: Typestore, msgtype: str) -> None:
    if msgtype in store.types:
        return
    path = _definition_file(msgtype)
    if path is None:
        raise ContractError(
            f"message type '{msgtype}' is unknown: build and source the workspace that defines it"
        )
    types = get_types_from_msg(path.read_text(encoding="utf-8"), msgtype)
    # Nested types first: a definition needs all of its parts for its hash.
    for _, fields in types[msgtype][1]:
        _register_nested(store, fields)
    store.register({key: value for key, value in types.items() if key not in store.types})


def _register_nested(store: Typestore, field: object) -> None:
    """Register message types that a field description (nested tuples) names."""
    if isinstance(field, str):
        if field.count("/") == 2 and field not in store.types:
            _register(store, field)
    elif isinstance(field, (tuple, list)):
        for part in field:
            _register_nested(store, part)


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The shared typestore: ROS 2 Jazzy's interfaces, others are added on demand."""
    return get_typestore(Stores.ROS2_JAZZY)


def has_header(msgtype: str) -> bool:
    """Whether the first field of a type is a std_msgs/Header, so that its stamp can be peeked.

    Raises:
        ContractError: the type is in no sourced package.
    """
    fields = ensure_type(msgtype).fielddefs[msgtype][1]
    return bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"


def ensure_type(msgtype: str) -> Typestore:
    """The typestore with ``msgtype`` in it.

    Raises:
        ContractError: the type is in no sourced package.
    """
    store = typestore()
    _register(store, msgtype)
    return store
