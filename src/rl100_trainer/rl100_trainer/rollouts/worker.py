"""A worker process that owns some of the environments. Imports no PyTorch, so it starts at once."""

from __future__ import annotations

import io
import signal
import traceback
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from rl100_trainer.rollouts.environment import ChunkEnv, EnvFactory, EpisodeLog
from rl100_trainer.rollouts.shared import BatchShape, SharedBatch

IDLE, RESET, STEP = 0, 1, 2
STEP_ALL, LOG_ON, LOG_OFF, QUIT = b"step", b"log", b"quiet", b"quit"
PREFIX = b"prefix"
DONE, FAILED, EPISODE = b"d", b"f", b"e"


def pack_episode(index: int, log: EpisodeLog) -> bytes:
    """An episode's rows as an .npz file in memory."""
    buffer = io.BytesIO()
    np.savez(buffer, index=np.int64(index), **log.arrays())  # type: ignore[arg-type]
    return buffer.getvalue()


class Worker:
    """Environments ``first`` … of a batch."""

    def __init__(
        self, pipe: Connection, batch: SharedBatch, first: int, environments: list[ChunkEnv]
    ) -> None:
        self._pipe, self._batch, self._first = pipe, batch, first
        self._environments = environments
        self._logs = [EpisodeLog() for _ in environments]
        self._prefixes: dict[int, NDArray[np.float32]] = {}

    def serve(self) -> None:
        """Obey until told to quit, or until the learner is gone."""
        while True:
            order = self._pipe.recv_bytes()
            if order == QUIT:
                return
            if order.startswith(PREFIX):
                with np.load(io.BytesIO(order[len(PREFIX) :]), allow_pickle=False) as chunks:
                    self._prefixes = {int(index): chunks[index] for index in chunks}
            elif order in (LOG_ON, LOG_OFF):
                for environment in self._environments:
                    environment.dense = order == LOG_ON
            else:
                self._step_all()
            self._pipe.send_bytes(DONE)

    def _step_all(self) -> None:
        batch = self._batch
        for slot, environment in enumerate(self._environments):
            index = self._first + slot
            if batch.command[index] == RESET:
                self._reset(slot)
            elif batch.command[index] == STEP:
                observation, _, terminated, truncated, info = environment.step(
                    batch.actions[index].copy()
                )
                batch.actions[index] = info["actions"]
                batch.rewards[index], batch.steps[index] = info["rewards"], info["steps"]
                batch.ended[index] = terminated or truncated
                batch.success[index] = info["success"]
                batch.set_observation(index, observation)
                if environment.dense:
                    self._logs[slot].add(info)
                if terminated or truncated:
                    self._finish(slot)

    def _finish(self, slot: int) -> None:
        """An episode is over: hand in its rows, and begin the next one when there is a seed."""
        if self._environments[slot].dense:
            self._pipe.send_bytes(EPISODE + pack_episode(self._first + slot, self._logs[slot]))
        if self._batch.seed[self._first + slot] >= 0:
            self._reset(slot)

    def _reset(self, slot: int) -> None:
        index = self._first + slot
        environment = self._environments[slot]
        observation, _ = environment.reset(seed=int(self._batch.seed[index]))
        for chunk in self._prefixes.pop(index, ()):
            observation, _, terminated, truncated, _ = environment.step(chunk)
            if terminated or truncated:
                raise RuntimeError("an episode that was to be continued ended on the way")
        self._batch.set_observation(index, observation)
        self._logs[slot] = EpisodeLog()


def run_worker(
    pipe: Connection, name: str, shape: BatchShape, first: int, count: int, factory: EnvFactory
) -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the learner's; it tells us to quit
    batch = SharedBatch(shape, name)
    try:
        worker = Worker(pipe, batch, first, [factory() for _ in range(count)])
        pipe.send_bytes(DONE)
        worker.serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the learner is gone
    except Exception as error:
        summary = traceback.format_exception_only(error)[-1].strip()
        pipe.send_bytes(FAILED + summary.encode())
