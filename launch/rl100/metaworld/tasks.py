"""The 50 tasks of Meta-World by name, and how long an episode is."""

from __future__ import annotations

import difflib

from rl100_contracts.errors import ContractError
from rl100_contracts.task import NANOSECONDS

#: Control steps after which an episode times out; the scripted experts take 50 to 150.
MAX_STEPS = 200
#: Meta-World itself refuses to go on after this many.
LONGEST_EPISODE = 500
PERIOD_NS = NANOSECONDS // 80  # of a control step
VERSION = "-v3"

# Known without Meta-World, so that a misspelt name is found before anything is started.
_NAMES = [
    "assembly", "basketball", "bin-picking", "box-close", "button-press",
    "button-press-topdown", "button-press-topdown-wall", "button-press-wall", "coffee-button",
    "coffee-pull", "coffee-push", "dial-turn", "disassemble", "door-close", "door-lock",
    "door-open", "door-unlock", "drawer-close", "drawer-open", "faucet-close", "faucet-open",
    "hammer", "hand-insert", "handle-press", "handle-press-side", "handle-pull",
    "handle-pull-side", "lever-pull", "peg-insert-side", "peg-unplug-side", "pick-out-of-hole",
    "pick-place", "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side",
    "plate-slide-side", "push", "push-back", "push-wall", "reach", "reach-wall", "shelf-place",
    "soccer", "stick-pull", "stick-push", "sweep", "sweep-into", "window-close", "window-open",
]  # fmt: skip


def task_names() -> list[str]:
    """Full names of all tasks."""
    return [name + VERSION for name in _NAMES]


def canonical_name(name: str) -> str:
    """Full name of a task, ``push-v3`` for ``push`` or ``push-v3``.

    Raises:
        ContractError: there is no such task; the sentence suggests the nearest ones.
    """
    text = name.strip().lower().replace("_", "-")
    short = text.removesuffix(VERSION)
    if short in _NAMES:
        return short + VERSION
    near = difflib.get_close_matches(short, _NAMES, n=3, cutoff=0.5)
    hint = " or ".join(f"'{match}{VERSION}'" for match in near)
    raise ContractError(
        f"Meta-World has no task '{name}': "
        + (f"did you mean {hint}?" if hint else f"it has {', '.join(_NAMES)}")
    )
