"""Pins the raw terminal: any bytes are survived, an arrow never looks like ESC, the terminal is
restored, and what is no terminal is refused with one sentence.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.errors import ContractError
from rl100_node.labelling import DISCARD, FAILURE, REWARD, STOP, SUCCESS, EpisodeView, LabelKeys
from rl100_node.terminal import ESC_TIMEOUT_S, KeyParser, KeyReader, RawTerminal

# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOD": "left", b"\x1b[1;2A": "shift+up", b"\x1b[1;5C": "ctrl+right",
    b"\x1b[1;4D": "shift+alt+left", b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown",
    b"\x1b[3~": "delete", b"\x1b[H": "home", b"\x1b[Z": "shift+tab", b"\x1b\x1b[A": "alt+up",
    b"\x1bs": "alt+s", b"s": "s", b"S": "S", b" ": "space", b"\r": "enter", b"\x7f": "backspace",
    b"\x04": "ctrl+d", "ü".encode(): "ü",
}  # fmt: skip
UNKNOWN = [b"\x1b[15~", b"\x1b[200~", b"\x1b[?1;2c", b"\x1b[[A", b"\x1b[1;99A", b"\x1bOP"]


def test_known_sequences() -> None:
    for data, name in SEQUENCES.items():
        parser = KeyParser()
        assert parser.feed(data, 0.0) == [name]
        assert not parser.pending
        assert parser.flush(10.0) == []
    for data in UNKNOWN:
        parser = KeyParser()
        assert parser.feed(data + b"s", 0.0) == ["s"]


@UNHURRIED
@given(st.lists(st.sampled_from(sorted(SEQUENCES)), max_size=30), st.data())
def test_sequences_survive_any_split(parts: list[bytes], data: st.DataObject) -> None:
    """However the bytes are cut into reads within the time-out, the keys are the same."""
    stream = b"".join(parts)
    parser, keys, now, place = KeyParser(), [], 0.0, 0
    while place < len(stream):
        size = data.draw(st.integers(1, 4))
        keys += parser.feed(stream[place : place + size], now)
        place, now = place + size, now + 0.9 * ESC_TIMEOUT_S
    assert keys == [SEQUENCES[part] for part in parts]
    assert parser.flush(now + 1.0) == []


def test_lone_escape_needs_its_time() -> None:
    parser = KeyParser()
    assert parser.feed(b"\x1b", 0.0) == []
    assert parser.pending and parser.flush(0.5 * ESC_TIMEOUT_S) == []
    assert parser.flush(ESC_TIMEOUT_S) == ["esc"]
    assert parser.feed(b"\x1b", 1.0) == []
    assert parser.feed(b"s", 2.0) == ["esc", "s"]
    assert parser.feed(b"\x1b" * 5, 3.0) + parser.flush(4.0) == ["esc"] * 4
    # The beginning of an arrow that is never finished is no ESC.
    assert parser.feed(b"\x1b[", 5.0) == [] and parser.flush(6.0) == []


@UNHURRIED
@given(st.lists(st.tuples(st.binary(max_size=12), st.floats(0, 0.3)), max_size=40))
def test_any_bytes_are_survived(reads: list[tuple[bytes, float]]) -> None:
    parser, labels, now = KeyParser(), LabelKeys(), 0.0
    for data, pause in reads:
        now += pause
        for key in parser.feed(data, now):
            assert key and key.isprintable() and "\x1b" not in key
            labels.press(key, now)
    parser.flush(now + 1.0)
    assert not parser.pending
    assert parser.feed(b"s", now + 2.0) in (["s"], ["�s"])


@UNHURRIED
@given(st.binary(max_size=200).filter(lambda data: b"\x1b" not in data))
def test_no_escape_byte_no_escape_key(data: bytes) -> None:
    parser = KeyParser()
    assert "esc" not in parser.feed(data, 0.0) + parser.flush(1.0)


def test_terminal_is_raw_inside_and_restored_after() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(RuntimeError), RawTerminal("test", slave):
        inside = termios.tcgetattr(slave)
        assert not inside[3] & (termios.ICANON | termios.ECHO)
        assert inside[3] & termios.ISIG  # Ctrl-C still interrupts
        assert inside[6][termios.VSUSP] == b"\0"
        raise RuntimeError("in the midst")
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_terminal_is_restored_when_the_process_exits_anyhow() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    script = "from rl100_node.terminal import RawTerminal; RawTerminal('x').__enter__(); exit(3)"
    done = subprocess.run([sys.executable, "-c", script], stdin=slave, check=False)
    assert done.returncode == 3
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_what_is_no_terminal_is_refused() -> None:
    read, write = os.pipe()
    with pytest.raises(ContractError, match="teleop reads keys, but its standard input is not"):
        RawTerminal("teleop", read)
    os.close(read)
    os.close(write)


def _wait(condition: threading.Event) -> None:
    assert condition.wait(10.0)


def test_reader_hands_out_keys_and_tells_a_lost_terminal() -> None:
    master, slave = pty.openpty()
    keys: list[str] = []
    closed, third = threading.Event(), threading.Event()

    def on_key(key: str) -> None:
        keys.append(key)
        if len(keys) == 3:
            third.set()

    with RawTerminal("test", slave) as terminal:
        reader = KeyReader(terminal, on_key, closed.set)
        os.write(master, b"\x1b[Ax")
        while len(keys) < 2:
            time.sleep(0.01)
        os.write(master, b"\x1b")
        _wait(third)
        os.close(master)
        _wait(closed)
        reader.close()
    assert keys == ["up", "x", "esc"]
    os.close(slave)


def test_label_keys() -> None:
    keys = LabelKeys(digit_reward=0.5)
    pressed = [keys.press(key, 10.0 * index) for index, key in enumerate("sfd3")]
    assert [(label.kind, label.value) for label in pressed if label] == [
        (SUCCESS, 1.0), (FAILURE, 0.0), (DISCARD, 0.0), (REWARD, 1.5),
    ]  # fmt: skip
    for key in ("space", "esc"):
        label = keys.press(key, 50.0)
        assert label is not None and label.kind == STOP
    for key in ("up", "alt+s", "ctrl+d", "x", "0", "", "S", "²"):
        assert keys.press(key, 60.0) is None


def test_held_key_labels_once_but_a_stop_always_counts() -> None:
    keys = LabelKeys(repeat_s=0.8)
    assert keys.press("s", 0.0) is not None
    assert [keys.press("s", 0.6 + 0.03 * index) for index in range(100)] == [None] * 100
    assert keys.press("s", 4.0) is None
    assert keys.press("s", 5.0) is not None
    assert all(keys.press("space", 6.0 + 0.03 * index) for index in range(10))


def test_view_of_the_episode() -> None:
    view = EpisodeView()
    assert view.line(0) == "no episode is running"
    view.started("a", 5_000_000_000)
    assert view.running == "a" and view.line(12_000_000_000) == "recording a 7 s"
    assert view.line(1) == "recording a"  # clocks that have nothing to do with each other
    view.ended("a", 1, True, "")
    assert view.line(0) == "no episode is running | last: a success, saved"
    view.started("b", 0)
    view.ended("b", 3, False, "")
    assert view.line(0) == "no episode is running | last: b discarded"
    view.ended("c", 0, False, "disc full")
    assert view.line(0) == "no episode is running | last: c no verdict, LOST (disc full)"
