"""Makes the workspace's message definitions findable, as in a sourced workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rl100_contracts.testing import found_definitions

MESSAGES = Path(__file__).resolve().parents[2] / "rl100_msgs" / "msg"


@pytest.fixture(autouse=True, scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Adds a prefix with the definitions of rl100_msgs to AMENT_PREFIX_PATH."""
    with found_definitions(MESSAGES, tmp_path_factory.mktemp("prefix")):
        yield
