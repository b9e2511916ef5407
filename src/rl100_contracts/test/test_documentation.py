"""The reference of the task file names every key that a task can have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from rl100_contracts import task

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "task_file.md"


def _keys() -> list[str]:
    models = [m for m in vars(task).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    return sorted({key for model in models for key in model.model_fields})


@pytest.mark.parametrize("key", _keys())
def test_key_is_documented(key: str) -> None:
    assert key in DOCUMENT.read_text(encoding="utf-8")
