"""Paths, errors, progress lines and logged subprocesses of the set-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOG_TAIL_LINES = 15


class SetupError(Exception):
    """Something the user can mend; the message is one sentence that says how."""


@dataclass(frozen=True)
class Paths:
    """Every path the set-up writes to, below the repository root."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.venv / "rl100_setup.json"

    @property
    def unfinished(self) -> Path:
        """Present while packages are being installed: an interrupted environment is not trusted."""
        return self.venv / "rl100_setup.unfinished"

    @property
    def log(self) -> Path:
        return self.venv / "rl100_setup.log"

    @property
    def lock_file(self) -> Path:
        return self.root / "setup" / "requirements.lock"

    @property
    def install(self) -> Path:
        return self.root / "install"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def build_stamp(self) -> Path:
        return self.install / "rl100_build.json"

    @property
    def env_file(self) -> Path:
        return self.install / "rl100_env.sh"


class Reporter:
    """One line per step: printed when it starts, finished with the seconds it took."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._start = time.monotonic()
        self._label = ""

    def say(self, text: str) -> None:
        print(f"rl100 setup: {text}", flush=True)

    def begin(self, label: str) -> None:
        self._label = label
        self._start = time.monotonic()
        if not self._live:
            self.say(f"{label} ...")

    def tick(self, detail: str) -> None:
        if self._live:
            seconds = time.monotonic() - self._start
            print(f"\r\033[K  {self._label} ... {seconds:.0f} s  {detail[:60]}", end="", flush=True)

    def end(self, outcome: str = "done") -> None:
        seconds = time.monotonic() - self._start
        clear = "\r\033[K" if self._live else ""
        print(f"{clear}rl100 setup: {self._label}: {outcome} ({seconds:.1f} s)", flush=True)


@dataclass(frozen=True)
class Finished:
    """Exit status and merged output of a logged command."""

    code: int
    output: str


@contextmanager
def _signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come inside the block act at its end."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def run_logged(
    command: Sequence[str], env: Mapping[str, str], paths: Paths, reporter: Reporter
) -> Finished:
    """Run a command with its output in the log; on Ctrl-C end it with all its children."""
    lines: list[str] = []
    process: subprocess.Popen[str] | None = None

    def pump() -> None:
        assert process is not None and process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            lines.append(line.rstrip())

    reader = threading.Thread(target=pump, daemon=True)
    with paths.log.open("a", encoding="utf-8") as log:
        log.write("$ " + " ".join(command) + "\n")
        try:
            # Half started, the command would be nobody's to end, and its output nobody's to close.
            with _signals_later():
                # A session of its own: the interrupt reaches this process alone, which then ends
                # the command's whole group (colcon and pip start children that would live on).
                process = subprocess.Popen(
                    list(command),
                    cwd=paths.root,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
                reader.start()
            while reader.is_alive():
                reader.join(timeout=1.0)
                reporter.tick(lines[-1] if lines else "")
            code = process.wait()
        except BaseException:
            if process is not None:
                _end_group(process)
                reader.join(timeout=2.0)
            raise
    return Finished(code, "\n".join(lines))


def _end_group(process: subprocess.Popen[str]) -> None:
    """Ask the command to stop, then end what it left behind: a child may ignore the request."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=5.0)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_tail(paths: Paths) -> str:
    """The last lines of the log, indented, or nothing."""
    try:
        lines = paths.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join("    " + line for line in lines[-LOG_TAIL_LINES:])
