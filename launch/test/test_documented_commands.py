"""Every ``rl100`` command that the README and the documentation show is one that rl100 takes.

Pins: the names of commands, systems and benchmarks, options, ``key:=value`` arguments and the keys
of ``--set``. A command without placeholders must parse as a whole, so that its values fit as well.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rl100.bench.command import bench_named
from rl100.bench.overrides import with_overrides
from rl100.bench.perception.run import FULL as PERCEPTION
from rl100.bench.policy.plan import plan_of
from rl100.cli import ELSEWHERE, app, command_elsewhere
from rl100.systems import parse_assignments, system_named
from rl100_trainer.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: FILE, DIR, N, <time>, [--json], …: what a reader is to put in, or may leave out.
PLACEHOLDER = re.compile(r"(?<![\w.])[A-Z][A-Z_]*(?![\w.])|[<\[…]|\.\.\.")


def _spans(text: str) -> Iterator[str]:
    """Lines of code blocks, with their continuations, and code within sentences."""
    for number, part in enumerate(text.split("```")):
        if number % 2:
            yield from part.replace("\\\n", " ").splitlines()
        else:
            yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", part))


def _documented() -> list[Any]:
    found: dict[str, str] = {}
    for page in PAGES:
        for span in _spans(page.read_text(encoding="utf-8")):
            match = re.match(r"(?:\./)?rl100 +([a-z].*)", span.strip())
            if match:
                command = re.sub(r"\s+#.*", "", match[1]).strip()
                found.setdefault(command, page.name)
    return [pytest.param(c, id=f"{page}: {c}") for c, page in found.items() if c[:4] != "env "]


def _command(name: str) -> Any:
    """The command, or the group of commands, that ``rl100 NAME`` runs."""
    if name in ELSEWHERE:
        module, attribute, _ = ELSEWHERE[name]
        return command_elsewhere(name, module, attribute)
    group: Any = typer.main.get_command(app)
    return group.commands.get(name)


def _check_words(command: Any, name: str, words: list[str]) -> None:
    """The command parses; in a mention of its name, or with placeholders, its options do."""
    text = " ".join(words)
    if words and not PLACEHOLDER.search(text):
        command.make_context(name, list(words))
        return
    options = {option for part in command.params for option in part.opts + part.secondary_opts}
    named = re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", text)
    assert set(named) <= options, f"{name} has {sorted(options)}"


def _check_settings(name: str, words: list[str]) -> None:
    """Keys and values of ``--set`` are the configuration's or the benchmark's."""
    settings = [after for word, after in itertools.pairwise(words) if word == "--set"]
    if name == "bench" and words[0] in ("policy", "perception"):
        for setting in settings:
            key, _, value = setting.partition("=")
            value = re.sub(r"[^\d.].*|^$", "1", value)
            if words[0] == "policy":
                plan_of(False, [f"{key}={value}"])
            else:
                with_overrides(PERCEPTION, "perception", [f"{key}={value}"])
    elif not any(PLACEHOLDER.search(setting) for setting in settings):
        load_config(None, settings)


def test_the_documentation_is_read() -> None:
    commands = [str(parameter.values[0]).split()[0] for parameter in _documented()]
    assert len(commands) > 60
    assert {"up", "train", "bench", "doctor", "iterate", "calibrate", "task"} <= set(commands)


@pytest.mark.parametrize("line", _documented())
def test_command_exists(line: str) -> None:
    name, *words = shlex.split(line.partition("|")[0])
    command = _command(name)
    assert command is not None, f"rl100 has no command {name}"
    while hasattr(command, "commands") and words:
        name, *words = words
        assert name in command.commands, f"no command {name} in 'rl100 {line}'"
        command = command.commands[name]
    if hasattr(command, "commands"):
        return  # a sentence about a whole group
    _check_words(command, name, words)
    if name == "up" and words and words[0].islower():
        known = {argument.name: argument for argument in system_named(words[0]).arguments}
        pairs = parse_assignments([word for word in words[1:] if ":=" in word])
        assert set(pairs) <= set(known), f"up {words[0]} has {sorted(known)}"
        for key, value in pairs.items():
            if not PLACEHOLDER.search(value):
                known[key].parse(value)
    if name == "bench" and words and words[0].islower():
        bench_named(words[0])
    _check_settings(name, words)
