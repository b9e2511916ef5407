"""A batch of environments in worker processes."""

from __future__ import annotations

import io
import multiprocessing
import os
from itertools import pairwise
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_trainer.rollouts.environment import EnvFactory
from rl100_trainer.rollouts.shared import BatchShape, SharedBatch
from rl100_trainer.rollouts.worker import (
    DONE,
    EPISODE,
    LOG_OFF,
    LOG_ON,
    PREFIX,
    QUIT,
    STEP_ALL,
    run_worker,
)
from rl100_trainer.spec import PolicySpec

PATIENCE_S = 5.0


class EnvironmentPool:
    """``environments`` copies of one environment, split over ``workers`` processes.

    ``batch`` holds what is exchanged: set ``batch.command`` (and ``actions`` or ``seed``) and call
    :meth:`step`. An environment whose episode ends begins the episode of ``batch.seed`` at once,
    or rests where that is negative. A context manager.

    Raises:
        ContractError: an environment cannot be made, or fails while stepping.
    """

    def __init__(
        self, factory: EnvFactory, spec: PolicySpec, environments: int, workers: int | None = None
    ) -> None:
        self.shape = BatchShape(
            environments,
            spec.n_obs_steps,
            spec.state_dim,
            spec.num_points,
            spec.n_action_steps,
            spec.action_dim,
            spec.image_shape or (0, 0),
        )
        self.batch = SharedBatch(self.shape)
        count = min(environments, workers or len(os.sched_getaffinity(0)))
        context = multiprocessing.get_context("spawn")
        bounds = np.linspace(0, environments, count + 1).astype(int)
        self._pipes, self._processes = [], []
        self._episodes: list[dict[str, NDArray[Any]]] = []
        for first, last in pairwise(bounds.tolist()):
            ours, theirs = context.Pipe()
            arguments = (theirs, self.batch.name, self.shape, first, last - first)
            process = context.Process(target=run_worker, args=(*arguments, factory), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect()

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.shape.environments

    def set_dense(self, dense: bool) -> None:
        """Whether finished episodes are handed in with every step's observation."""
        self._order(LOG_ON if dense else LOG_OFF)

    def step(self) -> None:
        """Do what ``batch.command`` says, in all environments."""
        self._order(STEP_ALL)

    def set_prefixes(self, prefixes: dict[int, NDArray[np.float32]]) -> None:
        """Chunks (D, n_c, d), task units, that environments execute right after their next reset.

        So an episode can be continued from any decision: worlds are functions of seed and actions.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **{str(i): chunks for i, chunks in prefixes.items()})  # type: ignore[arg-type]
        self._order(PREFIX + buffer.getvalue())

    def take_episodes(self) -> list[dict[str, NDArray[Any]]]:
        """Finished episodes since the last call, in dense mode: rows, and the env's ``index``."""
        taken, self._episodes = self._episodes, []
        return taken

    def _order(self, order: bytes) -> None:
        try:
            for pipe in self._pipes:
                pipe.send_bytes(order)
        except OSError:
            self._lost()
        self._collect()

    def _lost(self) -> NoReturn:
        self.close()
        raise ContractError(
            "a simulation process ended by itself: is there enough memory?"
        ) from None

    def _collect(self) -> None:
        for pipe in self._pipes:
            try:
                answer = pipe.recv_bytes()
                while answer[:1] == EPISODE:
                    with np.load(io.BytesIO(answer[1:]), allow_pickle=False) as rows:
                        self._episodes.append(dict(rows))
                    answer = pipe.recv_bytes()
            except (EOFError, OSError):
                self._lost()
            if answer != DONE:
                self.close()
                raise ContractError(f"a simulated world failed: {answer[1:].decode()}")

    def close(self) -> None:
        """End the processes; safe to call twice."""
        for pipe in self._pipes:
            try:
                pipe.send_bytes(QUIT)
                pipe.close()
            except OSError:
                continue  # gone already
        for process in self._processes:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
        if self._processes:
            self.batch.close()
        self._pipes, self._processes = [], []
