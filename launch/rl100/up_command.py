"""``rl100 up``: what the command prints and how it waits."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rl100.environment import common_environment, find_executable, node_environment
from rl100.shared_memory import MIB, left_behind
from rl100.system_parts import NodeSpec, suggestion
from rl100.systems import SYSTEMS, describe, parse_assignments, preflight, system_named
from rl100.up import RunningSystem, command_line
from rl100_contracts.errors import ContractError

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")


def print_systems() -> None:
    """Print the systems, one line each."""
    table = Table(title="systems: rl100 up SYSTEM key:=value ...", title_justify="left", box=None)
    table.add_column("system", style="bold")
    table.add_column("what it is for")
    for system in SYSTEMS.values():
        table.add_row(system.name, system.description)
    Console().print(table)


def print_arguments(name: str) -> None:
    """Print the arguments of one system."""
    system = system_named(name)
    table = Table(title=escape(f"{name}: {system.description}"), title_justify="left", box=None)
    for heading in ("argument", "default", "choices", "what it is"):
        table.add_column(heading)
    for argument in system.arguments:
        default = argument.default or ("(needed)" if argument.needed else "")
        choices = ", ".join(argument.choices) or ("true, false" if argument.kind is bool else "")
        table.add_row(argument.name, default, choices, escape(argument.description))
    Console().print(table)


def print_commands(name: str, words: list[str]) -> None:
    """Print the command line of every node of a system."""
    for spec in describe(name, parse_assignments(words)):
        program = f"{spec.package}/{spec.executable}"
        print(shlex.join(command_line(spec, program)))


def terminal_hint(spec: NodeSpec, name: str, words: list[str]) -> str:
    """How a person starts a node that reads keys."""
    command = shlex.join(["./rl100", "up", name, *words, "--only", spec.name])
    return f"{spec.name} reads keys: start it in another terminal with\n    {command}"


def run_one(name: str, words: list[str], only: str) -> None:
    """Become one node of a system, in this terminal.

    Raises:
        ContractError: the system has no such node, or it is not built.
    """
    nodes = {spec.name: spec for spec in preflight(name, parse_assignments(words))}
    full = only if only in nodes else f"rl100_{only}"
    if full not in nodes:
        raise ContractError(
            f"system '{name}' with these arguments has no node '{only}': it has "
            f"{', '.join(nodes)}" + suggestion(only, nodes)
        )
    spec = nodes[full]
    command = command_line(spec, find_executable(spec))
    environment = {**os.environ, **common_environment(), **node_environment(spec)}
    sys.stdout.flush()
    os.execve(command[0], command, environment)


class ConsoleSink:
    """Prints the lines of several nodes, each with its name in a colour of its own."""

    def __init__(self, names: list[str]) -> None:
        # highlight off: log lines are shown as they are.
        self._console = Console(highlight=False, soft_wrap=True)
        self._width = max((len(n) for n in names), default=0)
        self._styles = {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(names)}
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        text = Text(f"{name:<{self._width}} | ", style=self._styles.get(name, ""))
        text.append(line, style="default")
        with self._lock:
            self._console.print(text)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets.

    A second Ctrl-C changes nothing: the shutdown has its own time-outs, and must be finished.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_system(name: str, words: list[str], log_dir: Path | None = None) -> int:
    """Run a system until Ctrl-C (0) or until a node that it needs ends (that node's status).

    Raises:
        ContractError: wrong arguments, or something that is needed is missing.
    """
    nodes = preflight(name, parse_assignments(words))
    sink = ConsoleSink([spec.name for spec in nodes])
    count, size = left_behind(remove=True)
    if count:
        print(f"rl100: freed {size / MIB:.0f} MiB of shared memory of nodes that were killed")
    with stop_signals() as asked:
        system = RunningSystem(nodes, log_dir, sink=sink)
        print(f"rl100: starting {name}; logs in {system.log_dir}; Ctrl-C ends it", flush=True)
        for spec in nodes:
            if spec.needs_terminal:
                print(terminal_hint(spec, name, words), flush=True)
        with system:
            while not asked.is_set() and system.poll() is None:
                time.sleep(0.05)
            print("rl100: stopping", flush=True)
            failed = system.failure
            in_order = system.stop()
    if failed is not None:
        print(f"error: {failed.how_it_ended()}", file=sys.stderr)
        return failed.exit_code or 0
    if not in_order:
        print("error: some nodes did not end when asked and were killed", file=sys.stderr)
        return 1
    print("rl100: stopped", flush=True)
    return 0
