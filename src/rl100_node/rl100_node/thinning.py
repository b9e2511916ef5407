"""Which changes of a node's state go to its log: a state that comes and goes must not flood it."""

from __future__ import annotations

import time
from collections.abc import Callable

# A sentence is not said again within this time, s, and all is well only after it lasted so long, s.
AGAIN_S, LASTS_S = 5.0, 2.0
# So many sentences are counted: those with numbers in them are new each time.
MOST = 50


class Thinned:
    """Takes every change of a state, and gives what to say about it.

    What is wrong is said at once when it was not said just before. That it is over is said when
    that has lasted, with the number of times that it came meanwhile.

    Args:
        monotonic: time that never jumps, s.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._fine, self._text = True, ""
        self._since = monotonic()
        self._said, self._said_fine = "", True
        self._when: dict[str, float] = {}
        self._times: dict[str, tuple[float, int]] = {}  # of what is wrong: since, and how often

    def changed(self, text: str, *, fine: bool) -> str:
        """Take a new state; returns what to say now, or an empty string."""
        self._fine, self._text, self._since = fine, text, self._monotonic()
        if not fine:
            since, times = self._times.get(text, (self._since, 0))
            if len(self._times) >= MOST and text not in self._times:
                del self._times[next(iter(self._times))]
            self._times[text] = (since, times + 1)
        return self.due()

    def due(self) -> str:
        """What to say now about the present state, or an empty string; to be asked now and then."""
        now, text = self._monotonic(), self._text
        if (text, self._fine) == (self._said, self._said_fine):
            if self._fine:
                self._times.clear()
            return ""
        if self._fine and not self._said_fine:
            if now - self._since < LASTS_S:
                return ""
        elif now - self._when.get(text, -AGAIN_S) < AGAIN_S:
            return ""
        self._when = {text: at for text, at in self._when.items() if now - at < AGAIN_S}
        self._said, self._said_fine, self._when[text] = text, self._fine, now
        return text + self._came_and_went(now) if self._fine else text

    def _came_and_went(self, now: float) -> str:
        """What was more often so than the log says, in brackets."""
        often = {text: found for text, found in self._times.items() if found[1] > 1}
        self._times.clear()
        if not often:
            return ""
        text, (since, times) = max(often.items(), key=lambda item: item[1][1])
        return f" ({times} times in {now - since:.0f} s before: {text})"
