"""Makes the workspace's message definitions findable, as in a sourced workspace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

MESSAGES = Path(__file__).resolve().parents[2] / "rl100_msgs" / "msg"


@pytest.fixture(autouse=True, scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Adds a prefix with the definitions of rl100_msgs to AMENT_PREFIX_PATH."""
    prefix = tmp_path_factory.mktemp("prefix")
    shutil.copytree(MESSAGES, prefix / "share" / "rl100_msgs" / "msg")
    before = os.environ.get("AMENT_PREFIX_PATH", "")
    os.environ["AMENT_PREFIX_PATH"] = f"{before}{os.pathsep}{prefix}"
    yield
    os.environ["AMENT_PREFIX_PATH"] = before
