"""The in-process rollout source: a pool of simulated worlds, stepped together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl100_trainer.data.dataset import MODE_POLICY, EpisodeArrays, simulated_episode
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import (
    Decisions,
    OnEpisodes,
    Outcomes,
    Sampler,
    decide,
    ignore_episodes,
)
from rl100_trainer.rollouts.trajectory import Trajectory
from rl100_trainer.rollouts.worker import IDLE, RESET, STEP

NO_NEXT_EPISODE = NOBODY = -1
NOISE_SEEDS = 1_000_000_007
#: Start states of on-policy learning; multiples of it, one for each seed of a run.
FIRST_TRAINING_SEED = 10_000_000


class VectorSource:
    """Rollouts in a pool of environments; see ``RolloutSource``.

    Args:
        pool: kept open by the caller.
        max_steps: control steps after which an episode of the task times out.
        period_ns: control period, for the stamps of collected episodes.
        discount: γ of one control step.
        seed: of the noise, and of the start states of on-policy learning.
    """

    def __init__(
        self,
        pool: EnvironmentPool,
        *,
        max_steps: int,
        period_ns: int,
        discount: float,
        seed: int = 0,
    ) -> None:
        self.pool = self._pool = pool
        self._max_steps, self._period_ns = max_steps, period_ns
        self._discount = discount
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._next_seed = FIRST_TRAINING_SEED * (1 + seed)
        self._running: NDArray[np.int64] | None = None  # control steps so far, on-policy
        self.env_steps = 0

    def state(self) -> dict[str, torch.Tensor]:
        """Random numbers and counters; the worlds themselves begin new episodes when resumed."""
        return {
            "generator": self._generator.get_state(),
            "counters": torch.tensor([self.env_steps, self._next_seed]),
        }

    def set_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._generator.set_state(tensors["generator"])
        counters = (int(value) for value in tensors["counters"])
        self.env_steps, self._next_seed = counters
        self._running = None

    def _fresh(self, seeds: Sequence[int]) -> torch.Generator:
        """Noise that depends on what is run and not on what was run before (or in another life)."""
        return torch.Generator().manual_seed(self._seed * NOISE_SEEDS + int(seeds[0]))

    # --- whole episodes

    def evaluate(self, policy: DiffusionPolicy, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        """One episode for each seed, without exploration noise."""
        success = np.zeros(len(seeds), dtype=np.bool_)
        steps = np.zeros(len(seeds), dtype=np.int64)
        for slots, _, chosen in self._episodes(policy, sampler, seeds, self._fresh(seeds), False):
            batch = self._pool.batch
            steps[chosen] += batch.steps[slots]
            success[chosen] |= batch.success[slots]
        return Outcomes(success, steps)

    def collect(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        on_episodes: OnEpisodes = ignore_episodes,
        *,
        explore: bool = True,
    ) -> list[EpisodeArrays]:
        """One episode for each seed with every step's observation and, exploring, every chain."""
        chains: list[list[NDArray[np.float32]]] = [[] for _ in seeds]
        log_probs: list[list[NDArray[np.float32]]] = [[] for _ in seeds]
        rows: dict[int, dict[str, NDArray[Any]]] = {}
        success = np.zeros(len(seeds), dtype=np.bool_)
        self._pool.set_dense(True)
        try:
            walk = self._episodes(policy, "k_step", seeds, self._fresh(seeds), explore)
            for slots, decisions, chosen in walk:
                for row, episode in enumerate(chosen if explore else ()):
                    chains[episode].append(decisions.chains[row])
                    log_probs[episode].append(decisions.log_probs[row])
                success[chosen] |= self._pool.batch.success[slots]
                owner = dict(zip(slots.tolist(), chosen.tolist(), strict=True))
                before = len(rows)
                for finished in self._pool.take_episodes():
                    rows[owner[int(finished.pop("index"))]] = finished
                if len(rows) > before:
                    on_episodes(len(rows))
        finally:
            self._pool.set_dense(False)
        name = f"{'rollout' if explore else 'trial'}_{self._seed}_{seeds[0]}"
        self.env_steps += sum(len(row["rewards"]) for row in rows.values())
        return [
            simulated_episode(
                f"{name}_{seed}",
                **rows[index],
                period_ns=self._period_ns,
                mode=MODE_POLICY,
                success=bool(success[index]),
                source=name,
                chains=np.stack(chains[index]) if explore else None,
                log_probs=np.stack(log_probs[index]) if explore else None,
            )
            for index, seed in enumerate(seeds)
        ]

    def _episodes(
        self,
        policy: DiffusionPolicy,
        sampler: Sampler,
        seeds: Sequence[int],
        generator: torch.Generator,
        stochastic: bool,
    ) -> Iterator[tuple[NDArray[np.int64], Decisions, NDArray[np.int64]]]:
        """Run all episodes; after each step: slots that stepped, decisions, index of the seed."""
        batch, count = self._pool.batch, len(self._pool)
        self._running = None  # on-policy episodes are broken off
        episode = np.full(count, NOBODY, dtype=np.int64)
        started = 0
        batch.seed[:] = NO_NEXT_EPISODE
        while True:
            batch.command[:] = IDLE
            slots = np.flatnonzero(episode != NOBODY)
            if len(slots):
                decisions = decide(
                    policy,
                    [array[slots] for array in batch.observed],
                    generator,
                    sampler=sampler,
                    stochastic=stochastic,
                )
                batch.actions[slots] = decisions.actions
                batch.command[slots] = STEP
            # Free slots begin their next episode while the others step.
            for slot in np.flatnonzero(episode == NOBODY)[: len(seeds) - started]:
                episode[slot] = started
                batch.command[slot], batch.seed[slot] = RESET, seeds[started]
                started += 1
            if not batch.command.any():
                return
            self._pool.step()
            batch.seed[:] = NO_NEXT_EPISODE
            if len(slots):
                yield slots, decisions, episode[slots]
                episode[slots[batch.ended[slots]]] = NOBODY

    # --- continuations

    def continue_from(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        prefixes: Sequence[NDArray[np.float32]],
        chunks: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Discounted returns (n,) of chunks (n, n_c, d) after given beginnings of episodes.

        Args:
            prefixes: of each, the chunks (D, n_c, d) that lead to the state, D >= 0.
            chunks: what is done there; afterwards the stochastic policy decides.
        """
        returns = np.zeros(len(seeds), dtype=np.float32)
        generator = self._fresh(seeds)
        for first in range(0, len(seeds), len(self._pool)):
            part = slice(first, first + len(self._pool))
            returns[part] = self._continue(
                policy, seeds[part], prefixes[part], chunks[part], generator
            )
        return returns

    def _continue(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        prefixes: Sequence[NDArray[np.float32]],
        chunks: NDArray[np.float32],
        generator: torch.Generator,
    ) -> NDArray[np.float32]:
        batch, count = self._pool.batch, len(seeds)
        self._running = None
        self._pool.set_prefixes({i: p for i, p in enumerate(prefixes) if len(p)})
        batch.command[:] = IDLE
        batch.command[:count], batch.seed[:count] = RESET, seeds
        self._pool.step()
        batch.seed[:] = NO_NEXT_EPISODE
        returns = np.zeros(count, dtype=np.float32)
        gone = np.zeros(count, dtype=np.int64)
        alive = np.arange(count)
        actions = chunks
        while len(alive):
            batch.command[:] = IDLE
            batch.command[alive], batch.actions[alive] = STEP, actions
            self._pool.step()
            powers = self._discount ** (gone[alive, None] + np.arange(chunks.shape[1]))
            returns[alive] += (batch.rewards[alive] * powers).sum(axis=1)
            gone[alive] += batch.steps[alive]
            alive = alive[~batch.ended[alive]]
            actions = decide(
                policy,
                [array[alive] for array in batch.observed],
                generator,
                sampler="k_step",
                stochastic=True,
            ).actions
        return returns

    # --- on-policy runs of decisions

    def _start_training(self) -> NDArray[np.int64]:
        batch = self._pool.batch
        batch.command[:] = RESET
        batch.seed[:] = self._training_seeds(len(self._pool))
        self._pool.step()
        return np.zeros(len(self._pool), dtype=np.int64)

    def _training_seeds(self, count: int) -> NDArray[np.int64]:
        first, self._next_seed = self._next_seed, self._next_seed + count
        return np.arange(first, first + count, dtype=np.int64)

    def trajectories(
        self, policy: DiffusionPolicy, environments: int, decisions: int
    ) -> list[Trajectory]:
        """``decisions`` decisions of every world, cut where episodes end.

        Worlds go on where the last call left them. ``environments`` is the size of the pool.
        """
        batch, count = self._pool.batch, len(self._pool)
        if self._running is None:
            self._running = self._start_training()
        begun = self._running
        seen = [np.empty((decisions + 1, *a.shape), dtype=a.dtype) for a in batch.observed]
        times = np.empty((decisions + 1, count), dtype=np.float32)
        rewards = np.empty((decisions, *batch.rewards.shape), dtype=np.float32)
        steps = np.empty((decisions, count), dtype=np.int64)
        ended = np.empty((decisions, count), dtype=np.bool_)
        made = []
        for index in range(decisions):
            for kept, now in zip(seen, batch.observed, strict=True):
                kept[index] = now
            times[index] = begun / self._max_steps
            decision = decide(
                policy,
                [kept[index] for kept in seen],
                self._generator,
                sampler="k_step",
                stochastic=True,
            )
            made.append(decision)
            batch.actions[:] = decision.actions
            batch.command[:] = STEP
            batch.seed[:] = self._training_seeds(count)
            self._pool.step()
            rewards[index], steps[index], ended[index] = batch.rewards, batch.steps, batch.ended
            begun = np.where(batch.ended, 0, begun + batch.steps)
        for kept, now in zip(seen, batch.observed, strict=True):
            kept[-1] = now
        times[-1] = begun / self._max_steps
        states, clouds, images = seen
        self._running = begun
        self.env_steps += int(steps.sum())
        chains = np.stack([d.chains for d in made])
        log_probs = np.stack([d.log_probs for d in made])
        powers = self._discount ** np.arange(rewards.shape[-1])
        returns = (rewards * powers).sum(axis=-1).astype(np.float32)
        runs = []
        for world in range(count):
            first = 0
            for end in [*(np.flatnonzero(ended[:, world]) + 1), decisions]:
                if end == first:
                    continue
                rows = slice(first, end)
                runs.append(
                    Trajectory(
                        states=states[first : end + 1, world],
                        clouds=clouds[first : end + 1, world],
                        images=images[first : end + 1, world],
                        times=times[first : end + 1, world],
                        chains=chains[rows, world],
                        log_probs=log_probs[rows, world],
                        rewards=returns[rows, world],
                        steps=steps[rows, world],
                        ended=bool(ended[end - 1, world]),
                    )
                )
                first = end
        return runs
