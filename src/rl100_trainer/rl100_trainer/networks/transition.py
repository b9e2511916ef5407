"""Transition model: an ensemble of probabilistic MLPs in a feature space (PETS, MBPO).

Chua et al. 2018, appendix A; Janner et al. 2019; algorithm.md §3. All members are evaluated in one
batched matrix product per layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rl100_trainer.networks.normaliser import SMALLEST_SCALE

INITIAL_LOG_VARIANCE_RANGE = (-10.0, 0.5)  # of normalised targets, as in PETS and MBPO


class Prediction(NamedTuple):
    """What M members say of B inputs, in normalised units; reward last among the outputs.

    mean and log_variance (M, B, z + 1), terminal (M, B): logit of the task's end in the chunk.
    """

    mean: Tensor
    log_variance: Tensor
    terminal: Tensor


class Transition(NamedTuple):
    """One predicted step: next_z (B, z), reward (B,) (that of the whole chunk, discounted as in the
    data), p_terminal (B,) 0…1, and disagreement (B,): RMS over z of the elites' standard deviation
    of the mean Δz, in units of the data's standard deviation of Δz.
    """

    next_z: Tensor
    reward: Tensor
    p_terminal: Tensor
    disagreement: Tensor


class EnsembleLinear(nn.Module):
    """M independent linear layers: (M, B, in) → (M, B, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """``which`` (E,) long picks members; then x is (E, B, in)."""
        if which is None:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[which], x, self.weight[which])


def bootstrap_weights(members: int, count: int, generator: torch.Generator) -> Tensor:
    """How often each member's bootstrap sample holds each of ``count`` transitions: float32 (M, N).

    Drawn with replacement, so about 37 % of the entries are 0. The generator is a CPU one.
    """
    drawn = torch.randint(count, (members, count), generator=generator)
    return torch.zeros(members, count).scatter_add_(1, drawn, torch.ones(members, count))


class GaussianEnsemble(nn.Module):
    """Predicts Δz, reward and end of a chunk from z (B, z_dim) and its action (B, action_dim).

    Inputs and targets are normalised inside (:meth:`fit`; identity before). Everything is float32.

    Args:
        z_dim: width of the frozen features.
        action_dim: width of the flattened, normalised chunk.
        members: networks that are trained.
        elites: how many of them :meth:`step` uses; until :meth:`choose_elites`, the first ones.
        widths: of the hidden layers.

    Raises:
        ValueError: more elites than members, or none.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        action_dim: int,
        members: int = 7,
        elites: int = 5,
        widths: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        if not 1 <= elites <= members:
            raise ValueError(f"elites must lie within 1…{members}, not at {elites}")
        self.z_dim, self.members = z_dim, members
        inputs, outputs = z_dim + action_dim, z_dim + 1
        self.layers = nn.ModuleList(
            EnsembleLinear(members, a, b) for a, b in pairwise([inputs, *widths, 2 * outputs + 1])
        )
        low, high = INITIAL_LOG_VARIANCE_RANGE
        self.min_log_variance = nn.Parameter(torch.full((outputs,), low))
        self.max_log_variance = nn.Parameter(torch.full((outputs,), high))
        self.elites: Tensor
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.target_mean: Tensor
        self.target_scale: Tensor
        self.register_buffer("elites", torch.arange(elites))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_scale", torch.ones(inputs))
        self.register_buffer("target_mean", torch.zeros(outputs))
        self.register_buffer("target_scale", torch.ones(outputs))

    @torch.no_grad()
    def fit(
        self, z: Tensor, action: Tensor, next_z: Tensor, reward: Tensor, known: Tensor | None = None
    ) -> None:
        """Take the normaliser's numbers from the training data; arguments as :meth:`nll`.

        Raises:
            ValueError: no next observation is known.
        """
        if known is not None and not bool(known.any()):
            raise ValueError("no transition has a next observation to learn from")
        inputs = torch.cat([z, action], dim=-1)
        self._take(inputs, self.input_mean, self.input_scale, slice(None))
        seen = slice(None) if known is None else known
        self._take((next_z - z)[seen], self.target_mean, self.target_scale, slice(0, -1))
        self._take(reward[:, None], self.target_mean, self.target_scale, slice(-1, None))

    @staticmethod
    def _take(values: Tensor, mean: Tensor, scale: Tensor, part: slice) -> None:
        mean[part] = values.mean(dim=0)
        scale[part] = values.std(dim=0, correction=0).clamp(min=SMALLEST_SCALE)

    def forward(self, z: Tensor, action: Tensor, which: Tensor | None = None) -> Prediction:
        """Predict with all members, or with those in ``which`` (E,) long.

        z and action are (B, ·), seen by every member alike, or (M, B, ·), each member its own.
        """
        x = (torch.cat([z, action], dim=-1) - self.input_mean) / self.input_scale
        if x.ndim == 2:
            x = x.expand(self.members if which is None else len(which), *x.shape)
        for layer in self.layers[:-1]:
            x = functional.silu(layer(x, which))
        x = self.layers[-1](x, which)
        mean, raw, terminal = x.split([self.z_dim + 1, self.z_dim + 1, 1], dim=-1)
        # Soft bounds keep gradients; hard ones would let a member get stuck beyond them.
        bounded = self.max_log_variance - functional.softplus(self.max_log_variance - raw)
        bounded = self.min_log_variance + functional.softplus(bounded - self.min_log_variance)
        return Prediction(mean, bounded, terminal.squeeze(-1))

    def nll(
        self,
        z: Tensor,
        action: Tensor,
        next_z: Tensor,
        reward: Tensor,
        terminal: Tensor,
        *,
        weights: Tensor | None = None,
        known: Tensor | None = None,
        beta: float = 0.0,
    ) -> Tensor:
        """Negative log-likelihood of each member, nats per transition: (M,).

        Gaussian terms of normalised Δz and reward, and a Bernoulli term of the end, summed over
        the outputs and averaged over the transitions that the member sees. Tensors are (B, …),
        or (M, B, …) for members with minibatches of their own.

        Args:
            z, action, next_z: (B, z), (B, a), (B, z) float32.
            reward: (B,) float32, of the chunk.
            terminal: (B,) bool or float, the task ended in the chunk (not: a time limit came).
            weights: (M, B) bool or float, which transitions each member sees, and how often (see
                :func:`bootstrap_weights`); None: all. A member that sees none has loss 0.
            known: (B,) bool, False where there is no next observation (the episode ended within
                the chunk): there ``next_z`` isn't looked at, reward and end are.
            beta: 0: the likelihood. Above, each Gaussian term is weighted with its own variance to
                that power, without gradient (β-NLL, Seitzer et al. 2022; 0.5 there), for training.
                The likelihood explains rare events, such as a sparse reward or a contact, as noise:
                it raises their variance instead of moving their mean.
        """
        if known is not None:
            next_z = torch.where(known.unsqueeze(-1), next_z, z)
        target = torch.cat([next_z - z, reward.unsqueeze(-1)], dim=-1)
        target = (target - self.target_mean) / self.target_scale
        mean, log_variance, logit = self(z, action)
        squared = (target - mean).square() * (-log_variance).exp()
        terms = 0.5 * (squared + log_variance + math.log(2.0 * math.pi))
        if beta > 0.0:
            terms = terms * (beta * log_variance.detach()).exp()
        change, earned = terms[..., :-1].sum(dim=-1), terms[..., -1]
        if known is not None:
            change = change * known.to(change.dtype)
        ends = functional.binary_cross_entropy_with_logits(
            logit, terminal.to(logit.dtype).expand_as(logit), reduction="none"
        )
        total = change + earned + ends
        if weights is None:
            return total.mean(dim=1)
        share = weights.to(total.dtype)
        tiny = torch.finfo(total.dtype).tiny
        return (total * share).sum(dim=1) / share.sum(dim=1).clamp(min=tiny)

    def bound_penalty(self) -> Tensor:
        """Σ (max - min) of the learnt bounds of the log variance; PETS adds 0.01 of it."""
        return (self.max_log_variance - self.min_log_variance).sum()

    @torch.no_grad()
    def choose_elites(self, errors: Tensor) -> None:
        """Let :meth:`step` use the members with the least held-out ``errors`` (M,).

        Raises:
            ValueError: a wrong shape, or fewer finite errors than elites.
        """
        if errors.shape != (self.members,):
            raise ValueError(f"errors {tuple(errors.shape)} must be ({self.members},)")
        finite = int(errors.isfinite().sum())
        if finite < len(self.elites):
            raise ValueError(f"only {finite} of {self.members} members have a finite error")
        ranked = torch.where(errors.isfinite(), errors, torch.inf).argsort(stable=True)
        self.elites.copy_(ranked[: len(self.elites)])

    @torch.no_grad()
    def step(self, z: Tensor, action: Tensor, noise: Tensor, member: Tensor) -> Transition:
        """Sample the next features with standard normal ``noise`` (B, z_dim), without gradient.

        The reward is its mean: its noise would only blur what is summed.

        Args:
            z, action: (B, z_dim), (B, action_dim).
            member: (B,) long, 0…elites - 1, which of the elites predicts each.
        """
        out = self(z, action, self.elites)
        rows = torch.arange(len(z), device=z.device)
        mean, log_variance = out.mean[member, rows], out.log_variance[member, rows, :-1]
        reward = mean[:, -1] * self.target_scale[-1] + self.target_mean[-1]
        drawn = mean[:, :-1] + (0.5 * log_variance).exp() * noise
        change = drawn * self.target_scale[:-1] + self.target_mean[:-1]
        spread = out.mean[..., :-1].var(dim=0, correction=0).mean(dim=-1).sqrt()
        return Transition(z + change, reward, out.terminal[member, rows].sigmoid(), spread)
