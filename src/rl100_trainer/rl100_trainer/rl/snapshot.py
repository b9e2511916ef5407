"""Everything that a phase may touch, kept aside, and put back bit by bit when the gate refuses.

A rejected candidate must leave no trace: not in the policy, its average, the optimisers' moments,
the consistency student, nor in the random numbers that follow (algorithm.md §3).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class _ModuleState:
    module: nn.Module
    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    trainable: dict[str, bool]
    training: dict[str, bool]

    @classmethod
    def take(cls, module: nn.Module) -> _ModuleState:
        parameters = dict(module.named_parameters())
        return cls(
            module,
            {name: value.detach().clone() for name, value in _tensors(module).items()},
            {k: None if p.grad is None else p.grad.clone() for k, p in parameters.items()},
            {name: parameter.requires_grad for name, parameter in parameters.items()},
            {name: part.training for name, part in module.named_modules()},
        )

    def check(self, label: str) -> None:
        now = {name: (value.shape, value.dtype) for name, value in _tensors(self.module).items()}
        if now != {name: (value.shape, value.dtype) for name, value in self.tensors.items()}:
            raise ValueError(f"module '{label}' was rebuilt after the snapshot")

    def restore(self) -> None:
        for name, value in _tensors(self.module).items():
            value.copy_(self.tensors[name])
        for name, parameter in self.module.named_parameters():
            kept = self.gradients[name]
            parameter.grad = None if kept is None else kept.clone()
            parameter.requires_grad_(self.trainable[name])
        for name, part in self.module.named_modules():
            part.training = self.training.get(name, part.training)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    # Not state_dict(): it leaves out the buffers that aren't saved.
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@dataclass(frozen=True)
class _OptimizerState:
    optimizer: Optimizer
    state: dict[Tensor, Any]
    groups: list[dict[str, Any]]

    @classmethod
    def take(cls, optimizer: Optimizer) -> _OptimizerState:
        state = {parameter: copy.deepcopy(kept) for parameter, kept in optimizer.state.items()}
        return cls(optimizer, state, [_copied(group) for group in optimizer.param_groups])

    def restore(self) -> None:
        # Not load_state_dict(): it casts moments to the parameters' dtype.
        self.optimizer.state.clear()
        for parameter, kept in self.state.items():
            self.optimizer.state[parameter] = copy.deepcopy(kept)
        groups = self.optimizer.param_groups
        del groups[len(self.groups) :]
        for group, kept in zip(groups, self.groups, strict=True):
            group.clear()
            group.update(_copied(kept))


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group with the very same parameters and a copy of everything else."""
    return {k: list(v) if k == "params" else copy.deepcopy(v) for k, v in group.items()}


@dataclass(frozen=True)
class Snapshot:
    """Deep copies of modules, optimisers, dictionaries of tensors and random generators.

    ``restore`` writes into the very objects that ``take`` was given and may be called repeatedly.
    """

    _modules: dict[str, _ModuleState] = field(default_factory=dict)
    _optimizers: dict[str, _OptimizerState] = field(default_factory=dict)
    _tensors: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = field(default_factory=list)
    _generators: list[tuple[torch.Generator, Tensor]] = field(default_factory=list)

    @classmethod
    def take(
        cls,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer] | None = None,
        tensors: Mapping[str, dict[str, Tensor]] | None = None,
        generators: Mapping[str, torch.Generator] | None = None,
    ) -> Snapshot:
        """Copy all of these.

        Args:
            modules: parameters, buffers (also those that aren't saved), gradients, and the
                train/eval and requires_grad switches.
            optimizers: states (moments, step counts) and groups (learning rates).
            tensors: by name, dictionaries of tensors, such as averaged weights.
            generators: random generators; their next numbers will be the same again.
        """
        return cls(
            {name: _ModuleState.take(module) for name, module in modules.items()},
            {name: _OptimizerState.take(one) for name, one in (optimizers or {}).items()},
            [
                (live, {name: value.detach().clone() for name, value in live.items()})
                for live in (tensors or {}).values()
            ],
            [(generator, generator.get_state()) for generator in (generators or {}).values()],
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, bit by bit; entries that came later disappear.

        Raises:
            ValueError: a module has other parameters or buffers now; nothing was changed then.
        """
        for name, module in self._modules.items():
            module.check(name)
        for module in self._modules.values():
            module.restore()
        for optimizer in self._optimizers.values():
            optimizer.restore()
        for live, kept in self._tensors:
            for name in live.keys() - kept.keys():
                del live[name]
            for name, value in kept.items():
                now = live.get(name)
                if now is not None and _kind(now) == _kind(value):
                    now.detach().copy_(value)
                else:
                    live[name] = value.clone()
        for generator, state in self._generators:
            generator.set_state(state)
