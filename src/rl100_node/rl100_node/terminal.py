"""Keys from a raw terminal (works over SSH, no display needed), and a status line.

``KeyParser`` is pure and takes any bytes; ``RawTerminal`` owns the terminal and always restores
it; ``KeyReader`` runs both in a thread. Keys are named: printable characters by themselves,
others ``up``, ``down``, ``left``, ``right``, ``pageup``, ``pagedown``, ``home``, ``end``,
``insert``, ``delete``, ``enter``, ``tab``, ``backspace``, ``space``, ``esc``, with ``shift+``,
``alt+``, ``ctrl+`` in front (in this order) where the terminal tells.
"""

from __future__ import annotations

import atexit
import codecs
import os
import select
import shutil
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from rl100_contracts.errors import ContractError

ESC = 0x1B
ESC_TIMEOUT_S = 0.1  # over SSH the parts of one escape sequence may arrive apart
_LONGEST = 32

_LETTERS = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "Z": "shift+tab",
}  # fmt: skip
_NUMBERS = {
    1: "home", 2: "insert", 3: "delete", 4: "end", 5: "pageup", 6: "pagedown", 7: "home", 8: "end",
}  # fmt: skip
_CONTROLS = {0x0D: "enter", 0x0A: "enter", 0x09: "tab", 0x7F: "backspace", 0x20: "space"}


class KeyParser:
    """Turns the bytes of a terminal into key names; unknown sequences are dropped whole.

    Args:
        esc_timeout_s: an ESC that nothing follows for longer is the key ``esc``.
    """

    def __init__(self, esc_timeout_s: float = ESC_TIMEOUT_S) -> None:
        self._timeout_s = esc_timeout_s
        self._sequence = bytearray()  # begins with ESC
        self._since = 0.0
        self._text = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def pending(self) -> bool:
        """Whether an escape sequence is unfinished: call ``flush`` soon."""
        return bool(self._sequence)

    def feed(self, data: bytes, now: float) -> list[str]:
        """Keys in ``data``; ``now`` in s, any steady clock."""
        keys = self.flush(now)
        for byte in data:
            if self._sequence:
                self._continue(byte, now, keys)
            elif byte == ESC:
                self._begin(now)
            else:
                self._plain(byte, keys)
        return keys

    def flush(self, now: float) -> list[str]:
        """The key ``esc`` when an ESC stood alone for long enough."""
        if not self._sequence or now - self._since < self._timeout_s:
            return []
        alone = all(byte == ESC for byte in self._sequence)
        self._sequence.clear()
        return ["esc"] if alone else []

    def _begin(self, now: float) -> None:
        self._sequence[:] = bytes([ESC])
        self._since = now

    def _plain(self, byte: int, keys: list[str]) -> None:
        if byte in _CONTROLS:
            keys.append(_CONTROLS[byte])
        elif 1 <= byte <= 26:
            keys.append(f"ctrl+{chr(byte + 96)}")
        elif byte >= 0x20:
            keys.extend(char for char in self._text.decode(bytes([byte])) if char.isprintable())

    def _continue(self, byte: int, now: float, keys: list[str]) -> None:
        sequence = self._sequence
        sequence.append(byte)
        self._since = now
        body = sequence.lstrip(bytes([ESC]))
        if not body:
            if len(sequence) > 2:  # ESC held down
                keys.append("esc")
                del sequence[2:]
            return
        alt = "alt+" if len(sequence) - len(body) > 1 else ""
        if body[0] not in b"[O":
            sequence.clear()
            plain: list[str] = []
            self._plain(byte, plain)
            keys.extend(f"alt+{key}" for key in plain)
        elif len(body) == 1:
            return
        elif byte == ESC:  # a new sequence begins in the midst of one
            self._begin(now)
        elif 0x40 <= byte <= 0x7E:
            # "[[A" is the Linux console's F1: one more byte follows.
            if bytes(body) == b"[[":
                return
            name = self._name(bytes(body[1:-1]), chr(byte))
            sequence.clear()
            if name:
                keys.append(alt + name if not name.startswith("shift+") else name)
        elif not 0x20 <= byte <= 0x3F or len(sequence) > _LONGEST:
            sequence.clear()

    @staticmethod
    def _name(parameters: bytes, final: str) -> str:
        """Name of a CSI or SS3 sequence, empty when it is no key that we know."""
        try:
            numbers = [int(part or 1) for part in parameters.decode("ascii").split(";")]
        except ValueError:
            return ""
        name = _NUMBERS.get(numbers[0], "") if final == "~" else _LETTERS.get(final, "")
        bits = numbers[1] - 1 if len(numbers) > 1 else 0
        if not name or not 0 <= bits < 8:
            return name if not bits else ""
        prefix = "".join(
            text for bit, text in ((1, "shift+"), (2, "alt+"), (4, "ctrl+")) if bits & bit
        )
        return prefix + name


class RawTerminal:
    """Context manager: keys come at once and unechoed; the terminal is restored whatever happens.

    Ctrl-C still interrupts; Ctrl-Z and Ctrl-\\ are off, because they would leave a raw terminal.

    Raises:
        ContractError: standard input is not a terminal.
    """

    def __init__(self, program: str, descriptor: int | None = None) -> None:
        self.descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self.descriptor):
            raise ContractError(
                f"{program} reads keys, but its standard input is not a terminal: start it by "
                "itself in a terminal (an SSH session will do), not from a launch file or a pipe"
            )
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        self._saved = termios.tcgetattr(self.descriptor)
        atexit.register(self.restore)
        tty.setcbreak(self.descriptor, termios.TCSANOW)
        mode = termios.tcgetattr(self.descriptor)
        for key in (termios.VSUSP, termios.VQUIT):
            mode[6][key] = b"\0"
        termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the terminal back as it was; may be called more than once."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        atexit.unregister(self.restore)
        with suppress(termios.error):  # the terminal may be gone (lost connection)
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, saved)


class KeyReader:
    """Reads keys in a thread and hands each to ``on_key`` at once.

    Args:
        terminal: entered.
        on_key: called with the key's name, in the reader's thread.
        on_closed: called once when the terminal is gone, in the reader's thread.
    """

    def __init__(
        self,
        terminal: RawTerminal,
        on_key: Callable[[str], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._terminal, self._on_key, self._on_closed = terminal, on_key, on_closed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="keys")
        self._thread.start()

    def close(self) -> None:
        """Stop reading; returns when no further key can be handed out."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        parser = KeyParser()
        descriptor = self._terminal.descriptor
        while not self._stop.is_set():
            # Short waits only while an ESC may turn out to stand alone.
            wait = ESC_TIMEOUT_S / 4 if parser.pending else 0.2
            try:
                ready, _, _ = select.select([descriptor], [], [], wait)
                data = os.read(descriptor, 1024) if ready else b""
            except OSError:
                ready, data = [descriptor], b""
            if ready and not data:
                self._on_closed()
                return
            now = time.monotonic()
            for key in parser.feed(data, now) if data else parser.flush(now):
                if not self._stop.is_set():
                    self._on_key(key)


class StatusLine:
    """One line that is rewritten in place. Thread-safe; silent when the output is no terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown = ""
        self._tty = sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Rewrite the line (cut to the width of the terminal)."""
        text = text.replace("\n", " ")[: max(shutil.get_terminal_size().columns - 1, 10)]
        with self._lock:
            if self._tty and text != self._shown:
                sys.stdout.write(f"\r\x1b[K{text}")
                sys.stdout.flush()
                self._shown = text

    def say(self, text: str) -> None:
        """Print lines above the status line."""
        with self._lock:
            start = "\r\x1b[K" if self._tty else ""
            sys.stdout.write(f"{start}{text}\n{self._shown}")
            sys.stdout.flush()

    def end(self) -> None:
        """Leave the line, so that the shell's prompt starts on a new one."""
        with self._lock:
            if self._tty and self._shown:
                sys.stdout.write("\n")
                sys.stdout.flush()
            self._shown = ""
