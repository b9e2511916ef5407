"""From sensor_msgs/Joy to a direction. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError


class JoyPilot:
    """Direction while the dead-man button is held; edges of the other buttons.

    Args:
        axes: for each action the index of the stick's axis.
        signs: for each action 1 or -1.
        deadman: index of the button without which nothing moves.
        deadzone: deflections below it are zero, 0 to 1.
        timeout_s: a joystick that is silent for longer counts as released, s.
    """

    def __init__(
        self,
        axes: Sequence[int],
        signs: Sequence[float],
        deadman: int,
        deadzone: float = 0.1,
        timeout_s: float = 0.5,
    ) -> None:
        if len(axes) != len(signs):
            raise ContractError(
                f"parameter signs has {len(signs)} values and axes {len(axes)}: give one sign for "
                "each axis"
            )
        if any(index < 0 for index in (*axes, deadman)):
            raise ContractError("parameters axes and deadman hold indices from 0 on")
        self._axes, self._signs = list(axes), np.asarray(signs, dtype=np.float64)
        self._deadman, self._deadzone, self._timeout_s = deadman, deadzone, timeout_s
        self._direction = np.zeros(len(self._axes))
        self._held = False
        self._heard = float("-inf")
        self._buttons: list[int] = []

    def receive(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> list[int]:
        """Take one message (``now`` in s, steady); the buttons that went down with it.

        Raises:
            ContractError: the joystick has fewer axes or buttons than the mapping names.
        """
        if len(axes) <= max(self._axes) or len(buttons) <= self._deadman:
            self._held = False
            raise ContractError(
                f"the joystick has {len(axes)} axes and {len(buttons)} buttons, the mapping needs "
                f"axis {max(self._axes)} and button {self._deadman}: set axes and deadman"
            )
        raw = np.asarray([axes[index] for index in self._axes], dtype=np.float64)
        raw = np.clip(np.nan_to_num(raw), -1.0, 1.0)
        # Continuous at the edge of the dead zone.
        beyond = np.maximum(np.abs(raw) - self._deadzone, 0.0) / (1.0 - self._deadzone)
        self._direction = np.sign(raw) * beyond * self._signs
        self._held, self._heard = bool(buttons[self._deadman]), now
        before, self._buttons = self._buttons, list(buttons)
        return [
            index
            for index, down in enumerate(buttons)
            if down and index < len(before) and not before[index]
        ]

    def held(self, now: float) -> bool:
        """Whether the dead-man button is held (``now`` in s, steady)."""
        return self._held and now - self._heard <= self._timeout_s

    def steer(self, now: float) -> NDArray[np.float64] | None:
        """Direction (d,), each from -1 to 1; None while the dead-man button isn't held."""
        if not self.held(now):
            return None
        return self._direction.copy()
