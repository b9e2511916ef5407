"""The steps of a run: what each came to and how long it took, in ``steps.json``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import finite, read_json, write_json_atomic
from rl100_trainer.disc import disc_told

STEPS = "steps.json"
DATA, INTERRUPTED = "data", "interrupted"  # no steps: the demonstrations; seconds of attempts

Result = dict[str, Any]


class Steps:
    """Does each named step once, however often the run is interrupted.

    Args:
        run: folder of the run.
        data: fingerprint of the demonstrations.

    Raises:
        ContractError: the folder holds a run with other demonstrations, or its journal is damaged.
    """

    def __init__(self, run: Path, data: str) -> None:
        self._run = run
        self.results: dict[str, Result] = {}
        if (run / STEPS).is_file():
            self.results = read_json(run / STEPS)
        known = self.results.setdefault(DATA, {"fingerprint": data})
        if known["fingerprint"] != data:
            raise ContractError(
                f"{run}: this run was started with other demonstrations: give another folder"
            )
        with disc_told(f"{run / STEPS}: the run's journal", "it goes on"):
            self._write()

    def _write(self) -> None:
        write_json_atomic(self._run / STEPS, self.results)

    def do(self, name: str, action: Callable[[Path], Result]) -> Result:
        """Do a step, unless it is done already; its folder is made for it.

        The seconds of attempts that ended early are kept and added when it is done.

        Raises:
            ContractError: what the step leaves can't be written; earlier steps are kept.
        """
        if name in self.results:
            return self.results[name]
        with disc_told(f"{self._run}: step '{name}'", "it goes on with this step"):
            return self._do(name, action)

    def _do(self, name: str, action: Callable[[Path], Result]) -> Result:
        folder = self._run / name.partition(":")[0]
        folder.mkdir(parents=True, exist_ok=True)
        attempts: dict[str, float] = self.results.get(INTERRUPTED, {})
        earlier, started = attempts.pop(name, 0.0), time.monotonic()
        try:
            result = action(folder)
        except BaseException:
            attempts[name] = earlier + time.monotonic() - started
            self.results[INTERRUPTED] = attempts
            with contextlib.suppress(OSError):  # a full disc must not hide what has happened
                self._write()
            raise
        if not attempts:
            self.results.pop(INTERRUPTED, None)
        done = finite({**result, "seconds": earlier + time.monotonic() - started})
        self.results[name] = done
        try:
            self._write()
        except OSError:
            del self.results[name]
            raise
        return dict(done)

    @property
    def env_steps(self) -> int:
        """Control steps of all steps that are done."""
        return sum(int(step.get("env_steps", 0)) for step in self.results.values())

    @property
    def seconds(self) -> float:
        """Wall time of all steps and attempts, s; of one that was killed, nothing is known."""
        done = sum(float(step.get("seconds", 0.0)) for step in self.results.values())
        return done + float(sum(self.results.get(INTERRUPTED, {}).values()))
