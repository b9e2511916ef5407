"""What the online stage's update is made of, taken apart.

Pins: several runs of different lengths prepared together have the advantages and targets that each
has alone, which are those of a written-out sum with the critic's own values of that run's rows, the
one after its last chunk too; encoder and decoder are pulled by imitation's regularisers at a tenth
of their weight there, beside the policy's own loss, and by nothing where the encoder is frozen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl100_contracts.task import Task
from rl100_trainer.config import load_config
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.trajectory import Trajectory
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.online import Experience, OnlineLearner
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import REACH_SPEC

DISCOUNT, TRACE = 0.9, 0.95  # the paper's λ
TENTH = 0.1
STEPS = 3
# The default weight of the bottleneck is far below what a float32 gradient shows.
BETA_RECON, BETA_KL = 0.5, 0.02
SETTINGS = (
    "model.widths=[16]",
    "model.features=8",
    "model.point_widths=[8,16]",
    f"diffusion.steps={STEPS}",
    f"critic.discount={DISCOUNT}",
    "online.distill_weight=0",
    "run.device=cpu",
)
# Decisions of each run, and whether its episode ended with it.
RUNS = ((4, False), (1, True), (6, True), (1, False), (3, False))


def learner(spec: PolicySpec, *overrides: str) -> OnlineLearner:
    config = load_config(None, (*SETTINGS, *overrides))
    policy = make_policy(spec, config)
    torch.manual_seed(1)
    value = Critic(spec, policy.normaliser, with_action=False)
    last = [layer for layer in value.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():  # fresh values hardly differ: another row's would not be noticed
        last.weight.mul_(10.0)
    return OnlineLearner(policy, value, config, 0)


def made_run(number: int, length: int, ended: bool) -> Trajectory:
    rng = np.random.default_rng(number)
    states = rng.normal(size=(length + 1, 1, 4)).astype(np.float32)
    if ended:  # nobody looks behind an end
        states[-1] = np.nan
    return Trajectory(
        states=states,
        clouds=np.zeros((length + 1, 1, 0, 3), dtype=np.float32),
        images=np.zeros((length + 1, 1, 0, 0, 3), dtype=np.uint8),
        times=np.linspace(0.0, 1.0, length + 1, dtype=np.float32),
        chains=rng.normal(size=(length, STEPS + 1, 2, 2)).astype(np.float32),
        log_probs=rng.normal(size=(length, STEPS)).astype(np.float32),
        rewards=rng.normal(size=length).astype(np.float32),
        steps=rng.integers(1, 3, length).astype(np.int64),
        ended=ended,
    )


@pytest.fixture
def runs() -> list[Trajectory]:
    return [made_run(number, *plan) for number, plan in enumerate(RUNS)]


def naive(run: Trajectory, value: Critic) -> tuple[list[float], list[float]]:
    """Advantages and targets: A_t = Σ_l λ^l (Π γ^n) δ_{t+l}, each written out."""
    with torch.no_grad():
        seen = [torch.from_numpy(a) for a in (run.states, run.clouds, run.images, run.times)]
        values = [float(value(*(a[[row]] for a in seen))) for row in range(len(run) + 1)]
    if run.ended:
        values[-1] = 0.0
    errors = [
        float(run.rewards[t]) + DISCOUNT ** int(run.steps[t]) * values[t + 1] - values[t]
        for t in range(len(run))
    ]
    advantages = [
        sum(
            TRACE ** (s - t) * DISCOUNT ** int(run.steps[t:s].sum()) * errors[s]
            for s in range(t, len(run))
        )
        for t in range(len(run))
    ]
    return advantages, [a + v for a, v in zip(advantages, values, strict=False)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1)])
def test_runs_prepared_together_are_as_each_alone(
    runs: list[Trajectory], order: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows go through the networks a few at a time, cut anywhere.
    monkeypatch.setattr("rl100_trainer.stages.online.ENCODE_BATCH", 4)
    online = learner(REACH_SPEC)
    picked = [runs[i] for i in order]
    data = online.prepare(picked)
    raw = data.targets - data.values
    sums = [naive(run, online.value) for run in picked]
    wanted = torch.tensor([a for advantages, _ in sums for a in advantages])
    assert float(data.values.std()) > 0.5
    torch.testing.assert_close(raw, wanted, atol=1e-4, rtol=1e-4)
    targets = torch.tensor([g for _, targets in sums for g in targets])
    torch.testing.assert_close(data.targets, targets, atol=1e-4, rtol=1e-4)
    start = 0
    for run in picked:
        alone = online.prepare([run])
        own = slice(start, start + len(run))
        start += len(run)
        torch.testing.assert_close(data.targets[own], alone.targets, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(data.values[own], alone.values, atol=1e-5, rtol=1e-5)
        # Rows stay beside their advantages: the observation *before* each decision, its chain.
        assert np.array_equal(data.states[own], run.states[:-1])
        assert np.array_equal(data.times[own], run.times[:-1])
        assert np.array_equal(data.chains[:, own].transpose(0, 1), run.chains)
        assert np.array_equal(data.log_probs[:, own].transpose(0, 1), run.log_probs)
    assert start == len(data)


def test_advantages_are_normalised_over_all_runs(runs: list[Trajectory]) -> None:
    """Run by run, a run that went badly throughout would look as good as one that went well."""
    online = learner(REACH_SPEC)
    raw = torch.tensor([a for run in runs for a in naive(run, online.value)[0]])
    scaled = (raw - raw.mean()) / raw.std(correction=0)
    assert float(scaled.abs().max()) < 4.0  # or they would be cut off
    torch.testing.assert_close(online.prepare(runs).advantages, scaled, atol=1e-4, rtol=1e-4)


# --- regularisers


def chamfer(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance to the nearest point, both ways, of two clouds (N, 3), (M, 3)."""
    squared = (first[:, None] - second[None]).square().sum(-1)
    return squared.min(dim=1).values.mean() + squared.min(dim=0).values.mean()


def regularisers(policy: DiffusionPolicy, states: Tensor, clouds: Tensor) -> tuple[Tensor, Tensor]:
    """What imitation calls reconstruction and bottleneck, at weight 1, of an observed batch."""
    code = policy.encode(states, clouds)
    posterior = torch.distributions.Normal(code.mean, (0.5 * code.log_variance).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(posterior, prior).sum(dim=(1, 2)).mean()
    points, state = policy.decoder(code.mean)
    wanted = policy.normaliser.xyz(clouds)
    distances = [
        chamfer(made, seen)
        for made, seen in zip(points.flatten(0, 1), wanted.flatten(0, 1), strict=True)
    ]
    missed = (state - policy.normaliser.state(states)).square().mean()
    return torch.stack(distances).mean() + missed, kl


def round_of(online: OnlineLearner, advantages: Tensor) -> Experience:
    """Decisions of the policy itself, so that every ratio is 1 at first."""
    policy, count = online.policy, len(advantages)
    spec = policy.spec
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(count, spec.n_obs_steps, spec.state_dim, generator=generator)
    clouds = torch.randn(count, spec.n_obs_steps, spec.num_points, 3, generator=generator)
    shape = (count, policy.horizon, spec.action_dim)
    with torch.no_grad():
        chain = policy.rollout(
            policy.condition(states, clouds),
            torch.randn(shape, generator=generator),
            torch.randn((STEPS, *shape), generator=generator),
        )
    nothing = torch.zeros(count)
    return Experience(
        states=states,
        clouds=clouds,
        images=torch.zeros(count, spec.n_obs_steps, 0, 0, 3, dtype=torch.uint8),
        times=nothing,
        chains=chain.samples,
        log_probs=chain.log_probs,
        advantages=advantages,
        targets=nothing,
        values=nothing,
    )


def gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return flattened(found, parameters)


def flattened(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(gradients, parameters, strict=True)
        ]
    )


def pulled(online: OnlineLearner, data: Experience) -> Tensor:
    """Gradient that one update step gives to encoder and decoder."""
    parameters = [*online.policy.encoder.parameters(), *online.policy.decoder.parameters()]
    online._actor_step(data, torch.arange(len(data)))
    return flattened([p.grad for p in parameters], parameters)


def moved(policy: DiffusionPolicy, before: dict[str, Tensor]) -> set[str]:
    """Parts of the policy that aren't what they were."""
    after = policy.state_dict()
    return {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients as they are: what is pinned here is their size."""
    monkeypatch.setattr("rl100_trainer.stages.online.LARGEST_GRADIENT", math.inf)


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize(
    ("recon", "kl"), [(BETA_RECON, BETA_KL), (BETA_RECON, 0.0), (0.0, BETA_KL), (0.0, 0.0)]
)
def test_regularisers_pull_at_a_tenth_of_imitations_weights(
    task: Task, recon: float, kl: float
) -> None:
    weights = f"imitation.beta_recon={recon}", f"imitation.beta_kl={kl}"
    online = learner(PolicySpec.of_task(task), *weights)
    # Without advantages PPO has nothing to say: what is left are the regularisers.
    data = round_of(online, torch.zeros(6))
    policy = online.policy
    parameters = [*policy.encoder.parameters(), *policy.decoder.parameters()]
    reconstruction, bottleneck = regularisers(policy, data.states, data.clouds)
    parts = gradient(reconstruction, parameters), gradient(bottleneck, parameters)
    assert all(float(part.abs().max()) > 1e-3 for part in parts)
    wanted = TENTH * (recon * parts[0] + kl * parts[1])
    torch.testing.assert_close(pulled(online, data), wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("unlimited")
def test_they_come_on_top_of_the_policys_own_loss(task: Task) -> None:
    advantages = torch.tensor([1.0, -1.0, 2.0, -0.5, 0.3, -1.8])
    found = {}
    for recon in (0.0, BETA_RECON):
        weights = f"imitation.beta_recon={recon}", "imitation.beta_kl=0"
        online = learner(PolicySpec.of_task(task), *weights)
        data = round_of(online, advantages)
        reconstruction, _ = regularisers(online.policy, data.states, data.clouds)
        parameters = [*online.policy.encoder.parameters(), *online.policy.decoder.parameters()]
        extra = TENTH * BETA_RECON * gradient(reconstruction, parameters)
        before = copy.deepcopy(online.policy.state_dict())
        found[recon] = pulled(online, data)
        trained = {"denoiser", "encoder"} | ({"decoder"} if recon else set())
        assert moved(online.policy, before) == trained
    assert float(found[0.0].abs().max()) > 1e-3  # the policy's own pull on the encoder
    torch.testing.assert_close(found[BETA_RECON] - found[0.0], extra, atol=1e-5, rtol=1e-3)


def test_a_frozen_encoder_is_left_alone(task: Task) -> None:
    online = learner(PolicySpec.of_task(task), "online.train_encoder=false")
    data = round_of(online, torch.tensor([1.0, -1.0, 2.0]))
    before = copy.deepcopy(online.policy.state_dict())
    assert float(pulled(online, data).abs().max()) == 0.0
    assert moved(online.policy, before) == {"denoiser"}
