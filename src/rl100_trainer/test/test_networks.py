"""Networks: shapes, gradients, Chamfer and KL against plain formulas, chain log-probs, boundary."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rl100_contracts.task import Task
from rl100_trainer.config import load_config
from rl100_trainer.networks.decoders import chamfer
from rl100_trainer.networks.encoder import Code, kl_to_standard_normal
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.networks.skipnet import SkipNet
from rl100_trainer.networks.unet import UNet1d
from rl100_trainer.spec import PolicySpec


def test_chamfer_equals_brute_force() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 7, 3), torch.randn(3, 5, 3)
    expected = []
    for a, b in zip(first, second, strict=True):
        there = [min(float((p - q).square().sum()) for q in b) for p in a]
        back = [min(float((p - q).square().sum()) for p in a) for q in b]
        expected.append(sum(there) / len(there) + sum(back) / len(back))
    torch.testing.assert_close(chamfer(first, second), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_kl_equals_the_closed_form() -> None:
    torch.manual_seed(0)
    code = Code(torch.randn(4, 2, 3), torch.randn(4, 2, 3))
    posterior = torch.distributions.Normal(code.mean, (0.5 * code.log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(dim=(1, 2))
    torch.testing.assert_close(kl_to_standard_normal(code), expected)


@pytest.mark.parametrize("horizon", [1, 4, 5])
@pytest.mark.parametrize("kind", ["skipnet", "unet"])
def test_denoisers_keep_shapes_and_pass_gradients(kind: str, horizon: int) -> None:
    torch.manual_seed(0)
    network: nn.Module
    if kind == "skipnet":
        network = SkipNet(horizon=horizon, action_dim=2, condition=6, widths=[16, 16], expansion=2)
    else:
        network = UNet1d(action_dim=2, condition=6, widths=[16, 32, 32])
    sample = torch.randn(3, horizon, 2, requires_grad=True)
    condition = torch.randn(3, 6, requires_grad=True)
    out = network(sample, torch.tensor([1, 50, 91]), condition)
    assert out.shape == sample.shape
    out.square().sum().backward()
    assert sample.grad is not None and condition.grad is not None
    assert float(sample.grad.abs().max()) > 0 and float(condition.grad.abs().max()) > 0
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == []


@pytest.mark.parametrize("widths", ["[16,16]", "[16,32]"])
def test_recomputed_chain_log_probs_equal_the_sampled_ones(task: Task, widths: str) -> None:
    kind = "skipnet" if widths == "[16,16]" else "unet"
    config = load_config(
        None, [f"model.denoiser={kind}", f"model.widths={widths}", "model.features=8"]
    )
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicySpec.of_task(task), config)
    condition = torch.randn(5, policy.condition_dim)
    shape = (5, policy.horizon, 2)
    chain = policy.rollout(condition, torch.randn(shape), torch.randn(10, *shape))
    again = policy.chain_log_probs(condition, chain.samples)
    torch.testing.assert_close(again, chain.log_probs, atol=1e-3, rtol=1e-4)
    assert chain.samples.shape == (policy.schedule.steps + 1, *shape)


def test_a_longer_horizon_counts_only_the_executed_slice(task: Task) -> None:
    sizes = ["model.horizon=8", "model.widths=[16]", "model.features=8", "diffusion.steps=10"]
    config = load_config(None, sizes)
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicySpec.of_task(task), config)
    condition = torch.randn(2, policy.condition_dim)
    chain = policy.rollout(condition, torch.randn(2, 8, 2), torch.randn(10, 2, 8, 2))
    entries = []
    for k in range(10):
        now, then = chain.samples[k], chain.samples[k + 1]
        mean = policy.schedule.mean(policy.denoise(now, k, condition), now, k)
        normal = torch.distributions.Normal(mean, policy.schedule.sigma[k])
        entries.append(normal.log_prob(then)[:, :4].sum(dim=(1, 2)))
    torch.testing.assert_close(chain.log_probs, torch.stack(entries), atol=1e-3, rtol=1e-4)


def test_the_student_is_the_identity_without_noise(task: Task) -> None:
    config = load_config(None, ["model.widths=[16]", "model.features=8"])
    policy = DiffusionPolicy(PolicySpec.of_task(task), config)
    policy.schedule.alpha[3] = 1.0
    sample, condition = torch.randn(2, 4, 2), torch.randn(2, policy.condition_dim)
    torch.testing.assert_close(policy.student_clean(sample, 3, condition), sample)


def test_points_see_the_tool(task: Task) -> None:
    """Moving tool and cloud together leaves the tool-relative features as they are."""
    policy = DiffusionPolicy(PolicySpec.of_task(task), load_config())
    state, cloud = torch.randn(1, 2, 4), torch.randn(1, 2, 16, 3)
    before = policy.normaliser.points(state, cloud)
    shift = torch.tensor([0.3, -0.2])
    state[..., 2:4] += shift
    cloud[..., :2] += shift
    after = policy.normaliser.points(state, cloud)
    assert after.shape[-1] == 5
    torch.testing.assert_close(after[..., 3:], before[..., 3:], atol=1e-5, rtol=1e-5)
    assert float((after[..., :2] - before[..., :2]).abs().min()) > 0.1
