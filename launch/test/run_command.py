"""The ``rl100`` command as a process of its own, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # needs ROS
    from rl100_node.testing import Graph


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


def rl100_beside(
    graph: Graph, *words: str, folder: Path | None = None, timeout_s: float = 60.0
) -> tuple[int, str, str]:
    """Exit status, output and errors of ``rl100 WORDS``; the graph goes on meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rl100.cli", *words],
        env={**os.environ, "ROS_DOMAIN_ID": str(graph.domain), "COLUMNS": "160"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
        graph.spin(0.05)
    output, errors = process.communicate()
    assert "Traceback" not in output + errors
    return process.returncode, output, errors
