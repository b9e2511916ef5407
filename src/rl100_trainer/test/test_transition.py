"""The transition ensemble: its likelihood against torch.distributions, members that see only their
subset, elites, known next observations, noise, and a linear system that it learns.
"""

from __future__ import annotations

import pytest
import torch

from rl100_trainer.networks.transition import GaussianEnsemble, bootstrap_weights


def small(members: int = 3, elites: int = 2) -> GaussianEnsemble:
    torch.manual_seed(0)
    return GaussianEnsemble(z_dim=4, action_dim=2, members=members, elites=elites, widths=(16,))


def data(count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    z, action = torch.randn(count, 4, generator=g), torch.randn(count, 2, generator=g)
    next_z = z + torch.randn(count, 4, generator=g)
    ended = torch.rand(count, generator=g) < 0.3
    return z, action, next_z, torch.randn(count, generator=g), ended


def test_likelihood_is_that_of_the_distributions() -> None:
    model, (z, action, next_z, reward, ended) = small(), data(6)
    model.fit(z, action, next_z, reward)
    change = (next_z - z - (next_z - z).mean(0)) / (next_z - z).std(0, correction=0)
    earned = (reward - reward.mean()) / reward.std(correction=0)
    target = torch.cat([change, earned[:, None]], dim=1)
    out = model(z, action)
    normal = torch.distributions.Normal(out.mean, (0.5 * out.log_variance).exp())
    coin = torch.distributions.Bernoulli(logits=out.terminal)
    log_prob = normal.log_prob(target).sum(dim=2) + coin.log_prob(ended.float())
    nll = model.nll(z, action, next_z, reward, ended)
    torch.testing.assert_close(nll, -log_prob.mean(dim=1), atol=1e-5, rtol=1e-5)


def test_beta_weights_terms_with_their_own_variance() -> None:
    """At beta = 1 the means have the gradient of the squared error, whatever the variance."""
    model, (z, action, next_z, reward, ended) = small(), data(6)
    out = model(z, action)
    target = torch.cat([next_z - z, reward[:, None]], dim=1)
    normal = torch.distributions.Normal(out.mean, (0.5 * out.log_variance).exp())
    weighted = -normal.log_prob(target) * out.log_variance.exp().sqrt()
    coin = torch.distributions.Bernoulli(logits=out.terminal)
    expected = weighted.sum(dim=2) - coin.log_prob(ended.float())
    half = model.nll(z, action, next_z, reward, ended, beta=0.5)
    torch.testing.assert_close(half, expected.mean(dim=1))
    model.nll(z, action, next_z, reward, ended, beta=1.0).sum().backward()
    gradient = model.layers[-1].bias.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[:, 0, :5], (out.mean - target).mean(dim=1).detach())
    # That of the log variance v is (e^v - error²)/2: at rest where e^v is the squared error.
    slope = 0.5 * (out.log_variance.exp() - (target - out.mean).square()).detach()
    surrogate = (slope * out.log_variance).sum(dim=2).mean(dim=1).sum()
    (wanted,) = torch.autograd.grad(surrogate, model.layers[-1].bias)
    torch.testing.assert_close(gradient[:, 0, 5:10], wanted[:, 0, 5:10])


def test_the_batched_pass_equals_each_member_alone() -> None:
    model, (z, action, *_) = small(), data(5)
    out = model(z, action)
    x = torch.cat([z, action], dim=1)
    for m in range(3):
        hidden = torch.nn.functional.silu(x @ model.layers[0].weight[m] + model.layers[0].bias[m])
        alone = hidden @ model.layers[1].weight[m] + model.layers[1].bias[m]
        torch.testing.assert_close(out.mean[m], alone[:, :5])
        torch.testing.assert_close(out.terminal[m], alone[:, -1])
    some = model(z, action, torch.tensor([2, 0]))
    torch.testing.assert_close(some.mean, out.mean[[2, 0]])


def test_members_see_only_their_subset() -> None:
    model, (z, action, next_z, reward, ended) = small(), data(6)
    weights = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    masked = model.nll(z, action, next_z, reward, ended, weights=weights)
    for m, rows in enumerate([[0, 1], [2, 2, 4]]):
        alone = model.nll(z[rows], action[rows], next_z[rows], reward[rows], ended[rows])[m]
        torch.testing.assert_close(masked[m], alone)
    assert float(masked[2].detach()) == 0.0
    masked.sum().backward()
    gradient = model.layers[0].weight.grad
    assert gradient is not None
    assert float(gradient[2].abs().max()) == 0.0 and float(gradient[0].abs().max()) > 0.0
    rows = torch.tensor([[0, 1], [2, 4], [5, 3]])
    own = model.nll(z[rows], action[rows], next_z[rows], reward[rows], ended[rows])
    torch.testing.assert_close(own[0], masked[0])


def test_bootstrap_weights_count_draws_with_replacement() -> None:
    weights = bootstrap_weights(3, 500, torch.Generator().manual_seed(0))
    assert weights.sum(dim=1).tolist() == [500.0] * 3
    assert 0.3 < float((weights == 0.0).float().mean()) < 0.44
    assert not torch.equal(weights[0], weights[1])


def test_unknown_next_observations_are_not_looked_at() -> None:
    model, (z, action, next_z, reward, ended) = small(), data(6)
    known = torch.tensor([True, True, False, True, False, True])
    hidden = torch.where(known[:, None], next_z, torch.nan)
    model.fit(z, action, hidden, reward, known)
    reference = (next_z - z)[known]
    torch.testing.assert_close(model.target_mean[:-1], reference.mean(dim=0))
    nll = model.nll(z, action, hidden, reward, ended, known=known)
    kept = model.nll(z[known], action[known], next_z[known], reward[known], ended[known])
    out, earned = model(z, action), (reward - model.target_mean[-1]) / model.target_scale[-1]
    normal = torch.distributions.Normal(out.mean[..., -1], (0.5 * out.log_variance[..., -1]).exp())
    coin = torch.distributions.Bernoulli(logits=out.terminal)
    others = -(normal.log_prob(earned) + coin.log_prob(ended.float()))[:, ~known].sum(dim=1)
    torch.testing.assert_close(nll, (4.0 * kept + others) / 6.0, atol=1e-5, rtol=1e-5)
    nll.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(ValueError, match="no transition"):
        model.fit(z, action, hidden, reward, torch.zeros(6, dtype=torch.bool))


def test_log_variance_stays_within_its_soft_bounds() -> None:
    model, (z, action, *_) = small(), data(6)
    with torch.no_grad():
        model.layers[-1].bias[0] += 100.0
        model.layers[-1].bias[1] -= 100.0
    out = model(z, action).log_variance.detach()
    assert float(out.max()) <= 0.5 + 1e-3 and float(out.min()) >= -10.0 - 1e-3
    assert float(model.bound_penalty().detach()) == pytest.approx(5 * 10.5)


def test_elites_are_the_members_with_the_least_errors() -> None:
    model = small(members=5, elites=2)
    model.choose_elites(torch.tensor([0.5, float("nan"), 0.1, 0.3, 0.2]))
    assert model.elites.tolist() == [2, 4]
    copy = small(members=5, elites=2)
    copy.load_state_dict(model.state_dict())
    assert copy.elites.tolist() == [2, 4]
    with pytest.raises(ValueError, match="only 1 of 5"):
        model.choose_elites(torch.tensor([0.5] + 4 * [float("nan")]))
    with pytest.raises(ValueError, match="must be"):
        model.choose_elites(torch.zeros(3))
    with pytest.raises(ValueError, match="elites"):
        small(members=2, elites=3)


def test_a_step_is_the_chosen_elite_and_its_noise() -> None:
    model, (z, action, next_z, reward, _) = small(), data(4)
    model.fit(z, action, next_z, reward)
    model.choose_elites(torch.tensor([0.3, 0.9, 0.1]))  # elites 2, 0
    member, noise = torch.tensor([0, 1, 1, 0]), torch.randn(4, 4)
    step = model.step(z, action, noise, member)
    out = model(z, action)
    for i, m in enumerate([2, 0, 0, 2]):
        sampled = out.mean[m, i, :4] + (0.5 * out.log_variance[m, i, :4]).exp() * noise[i]
        expected = z[i] + sampled * model.target_scale[:4] + model.target_mean[:4]
        torch.testing.assert_close(step.next_z[i], expected)
        earned = out.mean[m, i, 4] * model.target_scale[4] + model.target_mean[4]
        torch.testing.assert_close(step.reward[i], earned)
        torch.testing.assert_close(step.p_terminal[i], out.terminal[m, i].sigmoid())
    apart = (out.mean[2, :, :4] - out.mean[0, :, :4]).abs() / 2.0
    torch.testing.assert_close(step.disagreement, apart.square().mean(dim=1).sqrt())
    assert not step.next_z.requires_grad
    again = model.step(z, action, noise, member)
    assert all(torch.equal(a, b) for a, b in zip(step, again, strict=True))


def system(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    """A linear system with noise .02 on Δz; it ends, with reward 1, where z_0 is large."""
    g = torch.Generator().manual_seed(seed)
    z = torch.rand(count, 4, generator=g) * 2.0 - 1.0
    action = torch.rand(count, 2, generator=g) * 2.0 - 1.0
    drift = torch.tensor([[0.1, 0.0], [0.0, 0.1], [0.05, -0.05], [0.0, 0.0]])
    next_z = z - 0.1 * z.roll(1, dims=1) + action @ drift.T
    next_z = next_z + 0.02 * torch.randn(count, 4, generator=g)
    ended = z[:, 0] > 0.5
    return z, action, next_z, ended.float(), ended


def test_a_linear_system_is_learnt() -> None:
    model = small(members=3, elites=2)
    train, held = system(1500, 0), system(400, 1)
    model.fit(*train[:4])
    weights = bootstrap_weights(3, 1500, torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    g = torch.Generator().manual_seed(3)
    before = model.nll(*held).detach()
    for _ in range(400):
        rows = torch.randint(1500, (128,), generator=g)
        nll = model.nll(*(part[rows] for part in train), weights=weights[:, rows], beta=0.5)
        optimizer.zero_grad()
        (nll.sum() + 0.01 * model.bound_penalty()).backward()
        optimizer.step()
    after = model.nll(*held).detach()
    assert (after < before - 5.0).all()
    model.choose_elites(after)
    z, action, next_z, _, ended = held
    step = model.step(z, action, torch.zeros_like(z), torch.zeros(400, dtype=torch.long))
    error = (step.next_z - next_z).square().mean().sqrt()
    assert float(error) < 0.025  # the noise alone is .02
    assert float(((step.p_terminal > 0.5) == ended).float().mean()) > 0.95
    # With beta = 0 it is .24 after 400 optimiser steps and .08 after 1,500: success is "noise".
    assert float(step.reward[ended].mean()) > 0.7
    assert float(step.reward[~ended].abs().mean()) < 0.1
    sigma = (0.5 * model(z, action).log_variance[..., :4].detach()).exp() * model.target_scale[:4]
    assert 0.015 < float(sigma.mean()) < 0.027
    far = model.step(5.0 * z, action, torch.zeros_like(z), torch.zeros(400, dtype=torch.long))
    assert float(far.disagreement.mean()) > 3.0 * float(step.disagreement.mean())
