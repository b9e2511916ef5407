"""The ``rl100`` command as a process of its own, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def rl100(*words: str | Path, timeout_s: float = 120.0, **environment: str) -> tuple[int, str]:
    """Exit status and output of ``rl100 WORDS``; AssertionError when it shows a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "rl100.cli", *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout
