"""What the keys of a person mean for the running episode, and what the person sees of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# rl100_msgs/RewardEvent.kind
SUCCESS, FAILURE, DISCARD, STOP, REWARD = range(5)

_KINDS = {
    "s": (SUCCESS, 1.0, "success"),
    "f": (FAILURE, 0.0, "failure"),
    "d": (DISCARD, 0.0, "discard"),
    "space": (STOP, 0.0, "STOP"),
    "esc": (STOP, 0.0, "STOP"),
}
_OUTCOMES = ("no verdict", "success", "failure", "discarded")  # EpisodeEvent.OUTCOME_*


@dataclass(frozen=True)
class Label:
    """One RewardEvent to publish: kind, value (unitless) and the word for it."""

    kind: int
    value: float
    word: str


class LabelKeys:
    """s success, f failure, d discard, space and ESC stop, 1 to 9 a reward.

    A key that is held down repeats; only its first press counts, or the repetition would label the
    next episode too. A stop always counts.

    Args:
        digit_reward: reward of the key 1; the key n gives n times it.
        repeat_s: presses of one key that follow each other faster are one press, s.
    """

    def __init__(self, digit_reward: float = 0.1, repeat_s: float = 0.8) -> None:
        self._digit_reward, self._repeat_s = digit_reward, repeat_s
        self._pressed: dict[str, float] = {}

    def press(self, key: str, now: float) -> Label | None:
        """What a key means; None for other keys and for repetitions. ``now`` in s, steady."""
        if len(key) == 1 and key in "123456789":
            value = int(key) * self._digit_reward
            label = Label(REWARD, value, f"reward {value:g}")
        elif key in _KINDS:
            label = Label(*_KINDS[key])
        else:
            return None
        before = self._pressed.get(key)
        self._pressed[key] = now
        repeated = before is not None and now - before < self._repeat_s
        return None if repeated and label.kind != STOP else label


class EpisodeView:
    """The running episode and the result of the last one, from EpisodeEvents."""

    def __init__(self) -> None:
        self._running = ""
        self._started_ns = 0
        self._last = ""

    @property
    def running(self) -> str:
        """Name of the running episode, empty when none runs."""
        return self._running

    def started(self, episode_id: str, stamp_ns: int) -> None:
        """An episode started at ``stamp_ns`` (clock of the sensors)."""
        self._running, self._started_ns = episode_id, stamp_ns

    def ended(self, episode_id: str, outcome: int, saved: bool, message: str) -> None:
        """An episode ended."""
        if self._running == episode_id:
            self._running = ""
        word = _OUTCOMES[outcome] if 0 <= outcome < len(_OUTCOMES) else f"outcome {outcome}"
        kept = "" if outcome == _OUTCOMES.index("discarded") else ", saved" if saved else ", LOST"
        self._last = f"{episode_id} {word}{kept}" + (f" ({message})" if message else "")

    def line(self, now_ns: int) -> str:
        """One line for the person; ``now_ns`` in the clock of the sensors."""
        if self._running:
            age_s = (now_ns - self._started_ns) * 1e-9
            # Without simulation time the clocks have nothing to do with each other.
            age = f" {age_s:.0f} s" if 0 <= age_s < 86_400 else ""
            now = f"recording {self._running}{age}"
        else:
            now = "no episode is running"
        return f"{now} | last: {self._last}" if self._last else now
