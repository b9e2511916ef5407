"""From key presses to a direction: a terminal tells presses and repeats, never a release. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task

FASTER, SLOWER = "]", "["
_FACTOR = 1.25

# Base frame of a robot that looks forward: x ahead, y to the left, z up.
CARTESIAN_KEYS = {
    "x": (("up", "i"), ("down", "k")),
    "y": (("left", "j"), ("right", "l")),
    "z": (("pageup", "u"), ("pagedown", "o")),
    "rx": (("Y",), ("H",)),
    "ry": (("U",), ("J",)),
    "rz": (("I",), ("K",)),
}
JOINT_KEYS = (
    (("up", "i"), ("down", "k")),
    (("left", "j"), ("right", "l")),
    (("pageup", "u"), ("pagedown", "o")),
    (("home",), ("end",)),
    (("insert",), ("delete",)),
    (("Y",), ("H",)),
    (("U",), ("J",)),
    (("I",), ("K",)),
)


def key_table(task: Task, invert: list[str]) -> dict[str, tuple[int, float]]:
    """For each key the index of the action and its sign.

    Args:
        task: the contract.
        invert: names of actions whose keys are swapped (a camera that looks at the robot).

    Raises:
        ContractError: more joints than keys, or an unknown name in ``invert``.
    """
    names = task.action.names
    if unknown := [name for name in invert if name not in names]:
        raise ContractError(
            f"parameter invert names '{unknown[0]}', which task '{task.name}' does not have: use "
            f"{', '.join(names)}"
        )
    if not task.action.is_cartesian and len(names) > len(JOINT_KEYS):
        raise ContractError(
            f"task '{task.name}' has {len(names)} joints, the keyboard can steer "
            f"{len(JOINT_KEYS)}: use another input device"
        )
    table = {}
    for index, name in enumerate(names):
        more, less = CARTESIAN_KEYS[name] if task.action.is_cartesian else JOINT_KEYS[index]
        sign = -1.0 if name in invert else 1.0
        table.update({key: (index, sign) for key in more})
        table.update({key: (index, -sign) for key in less})
    return table


class KeyPilot:
    """Direction and speed from keys.

    A press moves for ``tap_s``. Repeats of the same key (the terminal sends them while it is held,
    after a delay) keep the motion going until none came for ``repeat_timeout_s``.

    Args:
        table: from ``key_table``.
        dim: number of actions (d).
        speed: initial part of the largest speed.
        tap_s: motion after a single press, s.
        repeat_timeout_s: silence that means a release, s.
        repeat_delay_s: longest delay of the terminal's first repeat, s.
    """

    def __init__(
        self,
        table: dict[str, tuple[int, float]],
        dim: int,
        speed: float = 0.4,
        tap_s: float = 0.1,
        repeat_timeout_s: float = 0.15,
        repeat_delay_s: float = 0.8,
    ) -> None:
        self._table, self._dim = table, dim
        self.speed = speed
        self._tap_s, self._timeout_s, self._delay_s = tap_s, repeat_timeout_s, repeat_delay_s
        self._pressed: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._fast = False

    def press(self, key: str, now: float) -> bool:
        """Take a key (``now`` in s, steady); False when it doesn't steer."""
        if key in (FASTER, SLOWER):
            factor = _FACTOR if key == FASTER else 1 / _FACTOR
            self.speed = float(np.clip(self.speed * factor, 0.05, 1.0))
            return True
        name = key.removeprefix("shift+")
        if name not in self._table:
            return False
        self._fast = key != name
        held = now - self._pressed.get(name, float("-inf")) < self._delay_s
        self._pressed[name] = now
        self._until[name] = now + (self._timeout_s if held else self._tap_s)
        # The opposite key is a change of mind, not a press of both.
        index, sign = self._table[name]
        for other, (other_index, other_sign) in self._table.items():
            if other_index == index and other_sign != sign:
                self._until.pop(other, None)
        return True

    def stop(self) -> None:
        """Forget every pressed key."""
        self._pressed.clear()
        self._until.clear()

    def steer(self, now: float) -> tuple[NDArray[np.float64], float]:
        """Direction (d,), each -1, 0 or 1, and speed (shift: the largest)."""
        direction = np.zeros(self._dim)
        for name, until in self._until.items():
            if now <= until:
                index, sign = self._table[name]
                direction[index] = sign
        return direction, 1.0 if self._fast else self.speed
