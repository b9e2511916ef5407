"""What several files test with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rl100_contracts.task import Task, load_task
from rl100_contracts.testing import found_definitions

MESSAGES = Path(__file__).resolve().parents[2] / "rl100_msgs" / "msg"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workspace's own message definitions, found as in a sourced workspace."""
    with found_definitions(MESSAGES, tmp_path_factory.mktemp("prefix")):
        yield


@pytest.fixture
def task() -> Task:
    """The built-in task."""
    return load_task("push")
