"""Replay memory of chunk transitions for off-policy learning of a residual policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rl100_trainer.baselines.residual import ResidualPolicy
from rl100_trainer.data.transitions import Transitions
from rl100_trainer.networks.critics import POINTS
from rl100_trainer.networks.parts import in_parts
from rl100_trainer.rollouts.source import standard_normal
from rl100_trainer.rollouts.trajectory import OBSERVED, Trajectory, stack

ENCODE_BATCH = 1024


class Observed(NamedTuple):
    """B observations: states (B, n_o, d_s), clouds (B, 1, ≤ 64, 3) and images (B, 1, H, W, 3) in
    physical units (all that critics look at), times (B,), and of the residual policy condition
    (B, c) and base chunk (B, n_c, d), normalised.
    """

    states: Tensor
    clouds: Tensor
    images: Tensor
    times: Tensor
    condition: Tensor
    base: Tensor

    def at(self, rows: Tensor) -> Observed:
        """Those of the rows."""
        return Observed(*(values[rows] for values in self))


class Batch(NamedTuple):
    """B transitions: actions (B, n_c, d), normalised, rewards (B,) of the chunks and discounts
    (B,), γ^n or 0 behind an end.
    """

    now: Observed
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    then: Observed


class ReplayBuffer:
    """A ring of observations, each with the transition that begins there, if one does.

    What follows is a row too, so nothing is stored twice; a row is overwritten before the row that
    follows it. What the frozen base says of an observation is stored with it.

    Args:
        capacity: rows; a run of D decisions takes D + 1.
    """

    def __init__(self, policy: ResidualPolicy, capacity: int) -> None:
        spec, device = policy.spec, policy.normaliser.state_mean.device
        chunk = (capacity, spec.n_action_steps, spec.action_dim)
        seen = spec.observation_shapes
        shapes: tuple[tuple[int, ...], ...] = (
            (capacity, *seen["states"]),
            (capacity, 1, min(spec.num_points, POINTS), 3),
            (capacity, 1, *seen["images"][1:]),
            (capacity,),
            (capacity, policy.condition_dim),
            chunk,
        )
        kinds = {Observed._fields.index("images"): torch.uint8}
        self._policy, self._capacity, self._next = policy, capacity, 0
        # Not zeroed: pages that are never written then take no memory.
        self._observed = Observed(
            *(
                torch.empty(shape, dtype=kinds.get(i, torch.float32), device=device)
                for i, shape in enumerate(shapes)
            )
        )
        self._actions = torch.empty(chunk, device=device)
        self._rewards = torch.empty(capacity, device=device)
        self._discounts = torch.empty(capacity, device=device)
        self._following = torch.empty(capacity, dtype=torch.long, device=device)
        self._begins = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._rows = torch.zeros(0, dtype=torch.long, device=device)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return len(self._rows)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """Transitions drawn with replacement."""
        picked = torch.randint(len(self._rows), (count,), generator=generator)
        rows = self._rows[picked.to(self._rows.device)]
        return Batch(
            self._observed.at(rows),
            self._actions[rows],
            self._rewards[rows],
            self._discounts[rows],
            self._observed.at(self._following[rows]),
        )

    def add_transitions(self, data: Transitions, generator: torch.Generator) -> None:
        """Offline data (all S rows of it), in place of what was stored.

        Raises:
            ValueError: it doesn't fit.
        """
        data = data.to(self._rows.device)
        rows = self._place(len(data.times), 0)
        self._begins.zero_()
        begins = torch.zeros_like(rows, dtype=torch.bool)
        begins[data.rows] = True
        seen = data.observed(slice(None))
        condition = self._conditions(*seen)
        base = self._base(condition, generator)
        self._actions[rows] = self._policy.normaliser.action(data.actions).clamp(-1.0, 1.0)
        self._rewards[rows], self._discounts[rows] = data.rewards, data.discounts
        observed = Observed(*seen, data.times, condition, base)
        self._write(rows, observed, begins, data.following)

    def add_runs(
        self, runs: Sequence[Trajectory], discount: float, generator: torch.Generator
    ) -> None:
        """Runs of the residual policy: their chains end with the base's and the proposed chunk.

        Raises:
            ValueError: they don't fit.
        """
        device = self._rows.device
        states, clouds, images, times = (
            stack(runs, name, last=True).to(device) for name in (*OBSERVED, "times")
        )
        rows = self._place(len(times), self._next)
        lasts = torch.tensor([len(run) + 1 for run in runs]).cumsum(0).to(device) - 1
        begins = torch.ones_like(rows, dtype=torch.bool)
        begins[lasts] = False
        chains, from_rows = stack(runs, "chains").to(device), rows[begins]
        condition = self._conditions(states, clouds, images)
        base = torch.empty(len(rows), *self._actions.shape[1:], device=device)
        base[begins] = self._policy.limited(chains[:, -2])
        # Behind a run's last chunk nothing was decided yet.
        base[lasts] = self._base(condition[lasts], generator)
        self._actions[from_rows] = self._policy.limited(chains[:, -1])
        self._rewards[from_rows] = stack(runs, "rewards").to(device)
        discounts = torch.cat([run.discounts(discount) for run in runs])
        self._discounts[from_rows] = discounts.to(device)
        observed = Observed(states, clouds, images, times, condition, base)
        self._write(rows, observed, begins, (rows + 1) % self._capacity)

    def _place(self, count: int, first: int) -> Tensor:
        if count > self._capacity:
            raise ValueError(f"{count} observations don't fit into a buffer of {self._capacity}")
        self._next = (first + count) % self._capacity
        return (first + torch.arange(count, device=self._rows.device)) % self._capacity

    def _write(self, rows: Tensor, new: Observed, begins: Tensor, following: Tensor) -> None:
        clouds = new.clouds[:, -1:, : self._observed.clouds.shape[2]]
        newest = new._replace(clouds=clouds, images=new.images[:, -1:])
        for own, values in zip(self._observed, newest, strict=True):
            own[rows] = values
        self._begins[rows], self._following[rows] = begins, following
        self._rows = torch.nonzero(self._begins).squeeze(1)

    @torch.no_grad()
    def _conditions(self, *observed: Tensor) -> Tensor:
        return in_parts(self._policy.condition, *observed, size=ENCODE_BATCH)

    @torch.no_grad()
    def _base(self, conditions: Tensor, generator: torch.Generator) -> Tensor:
        policy = self._policy

        def base(part: Tensor) -> Tensor:
            shape = (len(part), policy.horizon, policy.spec.action_dim)
            return policy.base_chunk(part, standard_normal(shape, generator, part.device))

        return in_parts(base, conditions, size=ENCODE_BATCH)
