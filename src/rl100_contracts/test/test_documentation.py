"""The reference of the task file names every key that a task can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from rl100_contracts.task import Task

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "task_file.md"


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, and those in their fields."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(kind):
        yield from _models(part)


def _keys() -> list[str]:
    return sorted({key for model in _models(Task) for key in model.model_fields})


def test_every_part_of_the_task_is_looked_at() -> None:
    assert {"depth_range", "num_points", "max_tracking_error", "topic", "crop"} <= set(_keys())


@pytest.mark.parametrize("key", _keys())
def test_key_is_documented(key: str) -> None:
    assert key in DOCUMENT.read_text(encoding="utf-8")
