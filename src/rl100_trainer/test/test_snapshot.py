"""A snapshot puts everything back bit by bit after an update that harmed all of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from rl100_trainer.rl.snapshot import Snapshot


class Network(nn.Module):
    """With dropout, a saved buffer, one that isn't saved, and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 4)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.leave = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.scratch: torch.Tensor
        self.register_buffer("scratch", torch.randn(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.leave(self.norm(self.frozen(x))) * self.scratch
        return out


def update(network: nn.Module, optimizer: torch.optim.Optimizer, g: torch.Generator) -> None:
    optimizer.zero_grad()
    network(torch.randn(8, 3, generator=g)).square().mean().backward()
    optimizer.step()


def everything(*parts: Any) -> list[Any]:
    """Flat list of all tensors (as bytes) and numbers in modules, optimisers and dictionaries."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, nn.Module):
            found += everything(dict(part.named_parameters()), dict(part.named_buffers()))
            found += [p.grad is None or p.grad.numpy().tobytes() for p in part.parameters()]
            found += [p.requires_grad for p in part.parameters()]
            found += [child.training for child in part.modules()]
        elif isinstance(part, torch.optim.Optimizer):
            state = part.state_dict()
            found += everything(state["state"], *state["param_groups"])
        elif isinstance(part, dict):
            found += [entry for key in part for entry in (key, *everything(part[key]))]
        elif isinstance(part, torch.Generator):
            found.append(part.get_state().numpy().tobytes())
        elif isinstance(part, torch.Tensor):
            found.append((part.dtype, part.shape, part.detach().numpy().tobytes()))
        else:
            found.append(copy.deepcopy(part))
    return found


@pytest.mark.parametrize("kind", ["adamw", "sgd", "fresh"])
def test_bits_come_back(kind: str) -> None:
    torch.manual_seed(0)
    network, generator = Network(), torch.Generator().manual_seed(1)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(weights, lr=1e-2, amsgrad=True)
    if kind != "fresh":
        update(network, optimizer, generator)
    average = {"w": torch.randn(3), "n": torch.tensor(4)}
    kept_tensor = average["w"]
    parts = (network, optimizer, average, generator)
    before = everything(*parts)
    snapshot = Snapshot.take(
        {"network": network}, {"optimizer": optimizer}, {"average": average}, {"g": generator}
    )
    for repeat in range(2):  # a snapshot survives its use
        network.frozen.requires_grad_(True)
        network.eval()
        network.train()
        network.leave.eval()
        optimizer.add_param_group({"params": list(network.frozen.parameters())})
        for _ in range(3):
            update(network, optimizer, generator)
        optimizer.param_groups[0]["lr"] = 5.0
        with torch.no_grad():
            network.scratch.fill_(float("nan"))
            network.leave[1].weight.fill_(float("inf"))
            average["w"].zero_()
        average["extra"] = torch.ones(1)
        if repeat:
            del average["n"]
            average["n"] = torch.ones(7)
        assert everything(*parts) != before
        snapshot.restore()
        assert everything(*parts) == before
    assert average["w"] is kept_tensor
    assert optimizer.param_groups[0]["params"][0] is weights[0]


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    network, generator = Network(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    network.leave.eval()  # dropout draws from the global generator
    update(network, optimizer, generator)
    snapshot = Snapshot.take({"n": network}, {"o": optimizer}, generators={"g": generator})
    results = []
    for _ in range(2):
        for _ in range(3):
            update(network, optimizer, generator)
        results.append(everything(network, optimizer, generator))
        snapshot.restore()
    assert results[0] == results[1]


def test_moments_of_another_dtype_are_not_cast() -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg"] = state["exp_avg"].double() / 3.0
    before = everything(optimizer)
    snapshot = Snapshot.take({}, {"o": optimizer})
    optimizer.state.clear()
    snapshot.restore()
    assert everything(optimizer) == before


def test_a_rebuilt_module_is_refused_before_anything_changes() -> None:
    first, second = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))
    snapshot = Snapshot.take({"first": first, "second": second})
    with torch.no_grad():
        first.weight.zero_()
    second.append(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'second' was rebuilt"):
        snapshot.restore()
    assert float(first.weight.detach().abs().max()) == 0.0
