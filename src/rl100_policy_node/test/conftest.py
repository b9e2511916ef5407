"""The task and a maker of small bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl100_contracts.task import Task, load_task
from rl100_policy_node.testing import write_bundle


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task("push")


@pytest.fixture
def make_bundle(tmp_path: Path, task: Task) -> Callable[..., Path]:
    def make(version: str = "test-1", made_for: Task = task, **details: Any) -> Path:
        return write_bundle(tmp_path / version, made_for, **details)

    return make
