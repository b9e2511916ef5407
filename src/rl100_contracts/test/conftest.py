"""What several files test with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl100_contracts.task import Task, load_task

MESSAGES = Path(__file__).resolve().parents[2] / "rl100_msgs" / "msg"


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workspace's own message definitions, found as in a sourced workspace."""
    prefix = tmp_path_factory.mktemp("prefix")
    shutil.copytree(MESSAGES, prefix / "share" / "rl100_msgs" / "msg")
    before = os.environ.get("AMENT_PREFIX_PATH", "")
    os.environ["AMENT_PREFIX_PATH"] = f"{prefix}{os.pathsep}{before}"
    yield
    os.environ["AMENT_PREFIX_PATH"] = before


@pytest.fixture
def task() -> Task:
    """The built-in task."""
    return load_task("push")
