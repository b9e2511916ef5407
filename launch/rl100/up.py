"""Run the nodes of a system as processes: logs, restarts, and an end that leaves none behind."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import yaml

from rl100.environment import common_environment, find_executable, node_environment
from rl100.shared_memory import left_behind
from rl100.system_parts import NodeSpec, Value
from rl100_contracts.errors import MISTAKE, ContractError

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PLAIN = re.compile(r"^[A-Za-z_./~][A-Za-z0-9_./~+@-]*$")
PR_SET_PDEATHSIG = 1

LogSink = Callable[[str, str], None]


@dataclass(frozen=True)
class StopTimes:
    """How long to wait after each signal of the shutdown, s."""

    interrupt: float = 10.0
    terminate: float = 3.0
    kill: float = 2.0


@dataclass(frozen=True)
class RestartPolicy:
    """Pause before a restart, doubled each time up to ``longest_s``; forgotten after ``calm_s``."""

    first_s: float = 1.0
    longest_s: float = 30.0
    calm_s: float = 60.0
    attempts: int = 5


def parameter_text(value: Value) -> str:
    """A parameter value as YAML on one line that ROS reads back with the same type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # A dot, because YAML 1.1 reads 1e-05 as a string and 1 as an integer.
        text = repr(value)
        return text if "." in text or "n" in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    # Words that YAML may read as something else than text (yes, null, 1e3) are quoted.
    plain = PLAIN.match(value) and len(value) > 1 and isinstance(yaml.safe_load(value), str)
    return value if plain else "'" + value.replace("'", "''") + "'"


def command_line(spec: NodeSpec, executable: Path | str | None = None) -> list[str]:
    """The command that starts a node."""
    program = str(executable if executable is not None else find_executable(spec))
    command = [program, *spec.words, "--ros-args", "-r", f"__node:={spec.name}"]
    for key, value in spec.parameters.items():
        command += ["-p", f"{key}:={parameter_text(value)}"]
    return command


def die_with_parent(parent: int, *, own: bool) -> Callable[[], None] | None:
    """A function for the child that makes it die with its parent, even after kill -9 (Linux).

    In a node of ours (``own``) it also holds back a Ctrl-C until the node answers it
    (``run_node``): not while it imports.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if own:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return ask


def default_log_dir() -> Path:
    """A new folder where ROS keeps its logs."""
    home = os.environ.get("ROS_LOG_DIR")
    if not home:
        ros_home = os.environ.get("ROS_HOME") or str(Path.home() / ".ros")
        home = str(Path(ros_home) / "log")
    return Path(home) / f"rl100-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


class NodeProcess:
    """One node: its process, its log file, and what it said last."""

    def __init__(self, spec: NodeSpec, command: Sequence[str], log: Path, sink: LogSink) -> None:
        self.spec = spec
        self.command = list(command)
        self.log = log
        self.last_line = ""
        self.restarts = 0
        self.started_at = 0.0
        self.restart_at: float | None = None
        self.ended_for_good = False
        self._sink = sink
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches it through us only."""
        env = {**environment, **node_environment(self.spec, environment)}
        env.setdefault("PYTHONUNBUFFERED", "1")
        self.restart_at = None
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid(), own=self.spec.own),
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self.log.open("a", encoding="utf-8") as file:
            for raw in process.stdout:
                line = ANSI.sub("", raw.rstrip("\n"))
                if line.strip():
                    self.last_line = line.strip()
                file.write(f"{time.time():.3f} {line}\n")
                file.flush()
                self._sink(self.spec.name, line)

    @property
    def pid(self) -> int | None:
        """Process id, None before the start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status as a shell gives it (128 + n after signal n), None while it runs."""
        code = self._process.poll() if self._process else None
        return 128 - code if code is not None and code < 0 else code

    def signal(self, number: signal.Signals, group: bool = True) -> None:
        """Send a signal to the process, or to it and everything that it started."""
        if self._process is None:
            return
        try:
            if group:
                os.killpg(self._process.pid, number)
            elif self.running:
                os.kill(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def finish_log(self) -> None:
        """Wait shortly for the last lines of an ended process."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)

    def how_it_ended(self) -> str:
        """One sentence with the exit status and the last line of the log."""
        self.finish_log()
        code = self.exit_code or 0
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with status {code}"
        said = f"; its last line was: {self.last_line}" if self.last_line else "; it said nothing"
        return f"node {self.spec.name} {how}{said} (log: {self.log})"


class RunningSystem:
    """The processes of a system. Use as a context manager; the end of the block stops them all.

    Nodes that need a terminal are left out: a person starts them (``rl100 up --only``).

    Args:
        nodes: from ``describe``.
        log_dir: folder of the log files, one per node; made when missing; default: a new one
            where ROS keeps its logs.
        sink: called with (node name, line) for every line of output, from several threads.
        environment: of the processes; default: this one's, with what the nodes need added.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        log_dir: Path | None = None,
        *,
        sink: LogSink = lambda name, line: None,
        environment: Mapping[str, str] | None = None,
        stop_times: StopTimes | None = None,
        restarts: RestartPolicy | None = None,
    ) -> None:
        self.log_dir = (log_dir or default_log_dir()).absolute()
        self._sink = sink
        self._stop_times = stop_times or StopTimes()
        self._restarts = restarts or RestartPolicy()
        base = dict(os.environ if environment is None else environment)
        self._environment = {**base, **common_environment(base)}
        self._environment.setdefault("ROS_LOG_DIR", str(self.log_dir / "ros"))
        self.processes = [
            NodeProcess(spec, command_line(spec), self.log_dir / f"{spec.name}.log", sink)
            for spec in nodes
            if not spec.needs_terminal
        ]
        self.failure: NodeProcess | None = None

    def __enter__(self) -> RunningSystem:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every process.

        Raises:
            ContractError: the log folder cannot be written, or a program cannot be run.
        """
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            for process in self.processes:
                process.start(self._environment)
        except OSError as error:
            raise ContractError(f"cannot start the system: {error}") from error

    def poll(self) -> NodeProcess | None:
        """Restart what may be restarted; the process that ended the system, if one did."""
        now = time.monotonic()
        for process in self.processes:
            if self.failure is not None:
                break
            if process.running or process.ended_for_good:
                continue
            if process.restart_at is not None:
                if now >= process.restart_at:
                    left_behind(remove=True)  # by the one that ended
                    process.start(self._environment)
            elif not process.spec.respawn or self._refused_its_start(process, now):
                process.ended_for_good = True
                if process.spec.required or process.spec.respawn:
                    self.failure = process
                else:
                    self._sink(process.spec.name, f"[rl100] {process.how_it_ended()}")
            else:
                self._plan_restart(process, now)
        return self.failure

    def _refused_its_start(self, process: NodeProcess, now: float) -> bool:
        """Whether a mistake of the user's ended it at its first start: it would do so again."""
        young = process.restarts == 0 and now - process.started_at < self._restarts.calm_s
        return young and process.exit_code == MISTAKE

    def _plan_restart(self, process: NodeProcess, now: float) -> None:
        policy = self._restarts
        if now - process.started_at > policy.calm_s:
            process.restarts = 0
        if process.restarts >= policy.attempts:
            process.ended_for_good = True
            self.failure = process
            return
        pause = min(policy.first_s * 2**process.restarts, policy.longest_s)
        process.restarts += 1
        process.restart_at = now + pause
        bundle = process.spec.parameters.get("bundle", "")
        # What was pushed into it since is gone with it.
        with_what = f" with the bundle of its start, {bundle}" if bundle else ""
        self._sink(
            process.spec.name,
            f"[rl100] {process.how_it_ended()}; restart {process.restarts} in {pause:g} s"
            + with_what,
        )

    def check(self) -> None:
        """Raise when the system is no longer whole.

        Raises:
            ContractError: names the node that ended and its last log line.
        """
        failed = self.poll()
        if failed is not None:
            raise ContractError(failed.how_it_ended())

    def stop(self) -> bool:
        """Stop every process: interrupt, then terminate, then kill; False when some had to be
        killed. Safe to call twice."""
        times = self._stop_times
        for process in reversed(self.processes):
            # Only the node itself: it decides how its own children end.
            process.signal(signal.SIGINT, group=False)
        in_order = self._wait_all(times.interrupt)
        if not in_order:
            self._signal_running(signal.SIGTERM)
            in_order = self._wait_all(times.terminate)
        # Also what a node started and left behind.
        for process in self.processes:
            process.signal(signal.SIGKILL)
        self._wait_all(times.kill)
        for process in self.processes:
            process.finish_log()
        return in_order

    def _signal_running(self, number: signal.Signals) -> None:
        for process in reversed(self.processes):
            if process.running:
                process.signal(number)

    def _wait_all(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while any(process.running for process in self.processes):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True
