"""The distillation loss equals one that is written out, from the schedule's formula up.

Pins: the teacher is the policy's own deterministic DDIM chain, clean actions cut off at ±1; the
student's answer is √ᾱ x + √(1-ᾱ) F(x, τ); the noisiest sample of each chain is always learnt from,
the others are samples of the very chain whose end they are compared with, over the whole predicted
chunk; gradients reach the student and nothing else.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl100_trainer.config import TRAIN_STEPS, load_config
from rl100_trainer.distill import consistency_loss, student_error
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import REACH_SPEC

BATCH, HORIZON, SEED = 6, 4, 5


def made_policy(prediction: str, steps: int) -> DiffusionPolicy:
    config = load_config(
        None,
        [
            f"model.prediction={prediction}",
            f"model.horizon={HORIZON}",  # more than the two that are executed
            "model.widths=[16]",
            "model.features=8",
            f"diffusion.steps={steps}",
        ],
    )
    policy = make_policy(REACH_SPEC, config)
    with torch.no_grad():  # so that clean actions lie within the limits and beyond
        for network in (policy.denoiser, policy.student):
            network.leave.weight.mul_(6.0)  # type: ignore[union-attr, operator]
    return policy


def condition_of(policy: DiffusionPolicy) -> Tensor:
    """Encoded observations with a way back to the encoder."""
    states = torch.randn(BATCH, 1, 4, generator=torch.Generator().manual_seed(2))
    return policy.condition(states, torch.zeros(BATCH, 1, 0, 3))


def levels(steps: int) -> tuple[list[int], list[float]]:
    """Diffusion time and ᾱ of each denoising step, then ᾱ = 1: squared cosine, leading spacing."""

    def bar(time: int) -> float:
        product = 1.0
        for i in range(time + 1):
            there, here = (
                math.cos((u / TRAIN_STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (i + 1, i)
            )
            product *= 1.0 - min(1.0 - there / here, 0.999)
        return product

    stride = TRAIN_STEPS // steps
    times = [(steps - 1 - k) * stride + 1 for k in range(steps)]
    return times, [*(bar(time) for time in times), 1.0]


@torch.no_grad()
def teacher_chain(policy: DiffusionPolicy, condition: Tensor, noise: Tensor) -> list[Tensor]:
    """All K + 1 samples of the deterministic chain."""
    times, alphas = levels(policy.schedule.steps)
    samples = [noise]
    for time, here, there in zip(times, alphas, alphas[1:], strict=False):
        x = samples[-1]
        output = policy.denoiser(x, torch.full((len(x),), time), condition)
        if policy.schedule.prediction == "epsilon":
            clean, epsilon = (x - math.sqrt(1 - here) * output) / math.sqrt(here), output
        else:
            clean, epsilon = output, (x - math.sqrt(here) * output) / math.sqrt(1 - here)
        samples.append(math.sqrt(there) * clean.clamp(-1, 1) + math.sqrt(1 - there) * epsilon)
    return samples


class Seen:
    """What a network was given, call by call."""

    def __init__(self, network: nn.Module) -> None:
        self.calls: list[tuple[Tensor, ...]] = []
        network.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.calls.append(tuple(tensor.detach().clone() for tensor in inputs))


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize(("steps", "pairs"), [(5, 3), (2, 2), (3, 1)])
def test_the_loss_is_its_written_out_value(prediction: str, steps: int, pairs: int) -> None:
    policy = made_policy(prediction, steps)
    condition = condition_of(policy)
    seen = Seen(policy.student)
    loss = consistency_loss(policy, condition, pairs, torch.Generator().manual_seed(SEED))
    ((samples, at, conditions),) = seen.calls
    noise = torch.randn(
        BATCH, HORIZON, REACH_SPEC.action_dim, generator=torch.Generator().manual_seed(SEED)
    )
    chain = teacher_chain(policy, condition.detach(), noise)
    times, alphas = levels(steps)
    assert float(chain[-1].abs().max()) == 1.0  # the limit matters here

    total = torch.zeros(())
    for pair, b in itertools.product(range(pairs), range(BATCH)):
        row = pair * BATCH + b
        k = times.index(int(at[row]))
        assert (k == 0) == (pair == 0)
        torch.testing.assert_close(samples[row], chain[k][b], atol=1e-5, rtol=1e-5)
        assert torch.equal(conditions[row], condition[b])
        output = policy.student(chain[k][[b]], torch.tensor([times[k]]), condition[[b]].detach())
        answer = math.sqrt(alphas[k]) * chain[k][b] + math.sqrt(1 - alphas[k]) * output[0]
        total = total + (answer - chain[-1][b]).square().sum()
    wanted = total / (pairs * BATCH * HORIZON * REACH_SPEC.action_dim)
    assert float(loss.detach()) > 1e-2
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-4)

    # The chain's end is a constant of the loss: the same gradient, and nobody else gets one.
    parameters = list(policy.student.parameters())
    expected = torch.autograd.grad(wanted, parameters)
    loss.backward()
    for parameter, slope in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, slope, atol=1e-5, rtol=1e-3)
    touched = {n.partition(".")[0] for n, p in policy.named_parameters() if p.grad is not None}
    assert touched == {"student"}


def test_every_level_but_the_noisiest_is_drawn() -> None:
    policy = made_policy("sample", 5)
    condition, generator = condition_of(policy), torch.Generator().manual_seed(0)
    seen = Seen(policy.student)
    for _ in range(20):
        consistency_loss(policy, condition, 2, generator)
    times, _ = levels(5)
    drawn = torch.stack([at.view(2, BATCH) for _, at, _ in seen.calls])
    assert set(drawn[:, 0].flatten().tolist()) == {times[0]}
    assert set(drawn[:, 1].flatten().tolist()) == set(times[1:])
    # Fresh chains each time, and another level for each observation.
    assert not torch.equal(seen.calls[0][0], seen.calls[1][0])
    assert any(len(set(row.tolist())) > 1 for row in drawn[:, 1])


def test_a_student_that_knows_the_chains_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each sample of a chain its end, whichever level it is from, and only there."""
    policy = made_policy("epsilon", 4)
    condition = condition_of(policy).detach()
    noise = torch.randn(BATCH, HORIZON, 2, generator=torch.Generator().manual_seed(SEED))
    end = teacher_chain(policy, condition, noise)[-1]

    def knows(sample: Tensor, k: Tensor, _: Tensor) -> Tensor:
        return end.repeat(len(sample) // BATCH, 1, 1)

    monkeypatch.setattr(policy, "student_clean", knows)
    made = [
        float(consistency_loss(policy, condition, 3, torch.Generator().manual_seed(seed)))
        for seed in (SEED, SEED + 1)
    ]
    assert made[0] < 1e-9 < 1e-2 < made[1]


def test_the_error_that_is_reported_is_of_executed_actions() -> None:
    policy = made_policy("sample", 3)
    condition = condition_of(policy).detach()
    found = student_error(policy, condition, torch.Generator().manual_seed(SEED))
    noise = torch.randn(BATCH, HORIZON, 2, generator=torch.Generator().manual_seed(SEED))
    teacher = teacher_chain(policy, condition, noise)[-1]
    times, alphas = levels(3)
    with torch.no_grad():
        output = policy.student(noise, torch.full((BATCH,), times[0]), condition)
    student = math.sqrt(alphas[0]) * noise + math.sqrt(1 - alphas[0]) * output
    assert float(student.abs().max()) > 1.0  # what is deployed is limited
    gap = (student.clamp(-1, 1) - teacher)[:, : REACH_SPEC.n_action_steps]
    assert found == pytest.approx(float(gap.square().mean().sqrt()), rel=1e-4)
