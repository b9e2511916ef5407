"""Training in a child process: its command, its JSON lines, and its end within seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_AFTER_S = 1.5
KEPT_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """How the child ended: its result (None when it failed), and one sentence."""

    result: dict[str, Any] | None
    message: str


def training_command(
    stage: str,
    task: str,
    data: Sequence[str],
    output: Path,
    overrides: Sequence[str],
    previous: str = "",
) -> list[str]:
    """Command line that runs a stage with this interpreter."""
    command = [sys.executable, "-m", "rl100_trainer", stage, "--json", "--task", task]
    if previous:
        command += ["--previous", previous]
    for folder in data:
        command += ["--data", folder]
    for override in overrides:
        command += ["--set", override]
    return [*command, "--out", str(output)]


class TrainingProcess:
    """A running training command.

    Args:
        command: what to run; it prints JSON lines, see ``rl100_trainer.cli``.
        on_progress: called in another thread with each progress object.
        on_end: called once in that thread, when the child has ended and everything was read.
    """

    def __init__(
        self,
        command: Sequence[str],
        on_progress: Callable[[dict[str, Any]], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._on_progress, self._on_end = on_progress, on_end
        self._result: dict[str, Any] | None = None
        self._errors: deque[str] = deque(maxlen=KEPT_LINES)
        self._stopping = False
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A group of its own: a Ctrl-C of the node's terminal must not race its orderly end.
            start_new_session=True,
        )
        self._stderr = threading.Thread(target=self._read_errors, daemon=True)
        self._stdout = threading.Thread(target=self._read_lines, daemon=True)
        self._stderr.start()
        self._stdout.start()

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._process.pid

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._errors.append(line.strip())

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a library's chatter
            if isinstance(entry, dict) and "progress" in entry:
                self._on_progress(entry["progress"])
            elif isinstance(entry, dict) and "result" in entry:
                self._result = entry["result"]
        code = self._process.wait()
        self._stderr.join()
        self._on_end(self._outcome(code))

    def _outcome(self, code: int) -> Outcome:
        if self._stopping:
            return Outcome(None, "cancelled; the checkpoint is kept")
        if code == 0 and self._result is not None:
            return Outcome(self._result, "trained")
        last = self._errors[-1].removeprefix("error: ") if self._errors else "it said nothing"
        return Outcome(None, last if code == 2 else f"the training process ended ({code}): {last}")

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def stop(self) -> None:
        """Ask the child to end after its present step; kill it when it doesn't. Does not wait."""
        if self._stopping:
            return
        self._stopping = True
        self._signal(signal.SIGINT)
        timer = threading.Timer(STOP_AFTER_S, self._kill)
        timer.daemon = True
        timer.start()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)

    def stop_and_wait(self) -> None:
        """End the child, and return when it is gone."""
        self.stop()
        try:
            self._process.wait(STOP_AFTER_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
