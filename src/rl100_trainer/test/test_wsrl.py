"""The WSRL baseline on the toy task and its formulas against closed forms.

Pins: the tanh-Gaussian density is torch.distributions'; the temperature moves towards the target
entropy; the target is R + γ^n min Q'; the residual policy begins as exactly the cloned one; the
replay ring gives back what the worlds did, wrapped or not; recalibration changes no bit of the
actor; a short run does not lose success.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import distributions

from rl100_trainer.baselines import wsrl
from rl100_trainer.baselines.replay import ReplayBuffer
from rl100_trainer.baselines.residual import RESIDUAL, ResidualPolicy, tanh_gaussian
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays, make_windows
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.trajectory import Trajectory
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.stages.imitation import make_policy
from rl100_trainer.stages.losses import imitation_loss
from rl100_trainer.testing import MAX_STEPS, REACH_SPEC, ReachFactory, reach_demonstrations

DISCOUNT = 0.95
WORLDS = 8
SETTINGS = (
    "model.widths=[32]",
    "model.features=16",
    "model.prediction=sample",
    "diffusion.steps=3",
    "diffusion.sigma_min=0.1",
    "critic.discount=0.95",
    "critic.steps=60",
    "run.device=cpu",
)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load_config(None, SETTINGS)


@pytest.fixture(scope="module")
def episodes() -> list[EpisodeArrays]:
    return reach_demonstrations(range(30), 0.5)


@pytest.fixture(scope="module")
def data(episodes: list[EpisodeArrays]) -> Transitions:
    return make_transitions(episodes, REACH_SPEC, DISCOUNT, MAX_STEPS)


@pytest.fixture(scope="module")
def policy(config: TrainConfig, episodes: list[EpisodeArrays]) -> DiffusionPolicy:
    """A rough clone of the demonstrations."""
    clone = make_policy(REACH_SPEC, config)
    windows = make_windows(episodes, REACH_SPEC, clone.horizon)
    clone.normaliser.fit(REACH_SPEC, windows.states, windows.clouds, windows.actions[:, 0])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(clone.parameters(), 3e-3)
    for _ in range(150):
        index = torch.randint(len(windows), (64,), generator=generator)
        loss, _ = imitation_loss(clone, windows.subset(index), config.imitation, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clone


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvironmentPool]:
    with EnvironmentPool(ReachFactory(), REACH_SPEC, WORLDS, workers=1) as pool:
        yield pool


def source(pool: EnvironmentPool) -> VectorSource:
    return VectorSource(pool, max_steps=MAX_STEPS, period_ns=1, discount=DISCOUNT)


@pytest.fixture
def learner(policy: DiffusionPolicy, config: TrainConfig) -> wsrl.WsrlLearner:
    return wsrl.WsrlLearner(policy, config, 0)


@pytest.fixture
def runs(pool: EnvironmentPool, learner: wsrl.WsrlLearner) -> list[Trajectory]:
    return source(pool).trajectories(learner.policy, WORLDS, 12)


@pytest.fixture
def buffer(learner: wsrl.WsrlLearner, runs: list[Trajectory]) -> ReplayBuffer:
    buffer = ReplayBuffer(learner.policy, 500)
    buffer.add_runs(runs, DISCOUNT, torch.Generator().manual_seed(0))
    return buffer


def test_the_density_is_that_of_a_squashed_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = torch.randn(3, 200, 4, generator=generator, dtype=torch.float64)
    value, log_prob = tanh_gaussian(mean, log_std, noise)
    squash = distributions.TanhTransform(cache_size=1)
    normal = distributions.Normal(mean, log_std.exp())
    squashed = distributions.TransformedDistribution(normal, [squash])
    # The transform's cache needs the sample that it made itself.
    same = squash(mean + log_std.exp() * noise)
    torch.testing.assert_close(value, same)
    torch.testing.assert_close(log_prob, squashed.log_prob(same).sum(dim=-1))


def test_the_density_is_finite_where_tanh_saturates() -> None:
    mean = torch.tensor([[40.0], [-40.0]], requires_grad=True)
    value, log_prob = tanh_gaussian(mean, torch.zeros(2, 1), torch.zeros(2, 1))
    assert value.abs().eq(1.0).all() and log_prob.isfinite().all()
    (slope,) = torch.autograd.grad(log_prob.sum(), mean)
    torch.testing.assert_close(slope, torch.tensor([[2.0], [-2.0]]))  # d/du of -log(1 - tanh²)


@pytest.mark.parametrize(("entropy", "rises"), [(-3.0, True), (-1.0, False)])
def test_the_temperature_moves_towards_the_target(entropy: float, rises: bool) -> None:
    log_temperature = torch.zeros((), requires_grad=True)
    wsrl.temperature_loss(log_temperature, torch.full((5,), -entropy), -2.0).backward()
    assert log_temperature.grad is not None
    assert (float(log_temperature.grad) < 0.0) == rises  # descent goes against the gradient


def test_the_target_is_its_closed_form(learner: wsrl.WsrlLearner, buffer: ReplayBuffer) -> None:
    batch = buffer.sample(64, torch.Generator().manual_seed(1))
    assert (batch.discounts == 0.0).any() and (batch.discounts > 0.0).any()
    learner.generator.manual_seed(7)
    wanted = learner.targets(batch)
    noise = torch.randn(batch.then.base.shape, generator=torch.Generator().manual_seed(7))
    then = batch.then
    with torch.no_grad():
        actions, _ = learner.policy.correct(then.condition, then.base, noise)
        seen = then.states, then.clouds, then.images, then.times, actions
        first, second = (member(*seen) for member in learner.target.members)
    closed = batch.rewards + batch.discounts * torch.minimum(first, second)
    torch.testing.assert_close(wanted, closed)


def test_it_begins_as_the_cloned_policy(
    pool: EnvironmentPool, policy: DiffusionPolicy, learner: wsrl.WsrlLearner
) -> None:
    theirs = source(pool).evaluate(policy, "k_step", range(16))
    ours = source(pool).evaluate(learner.policy, "k_step", range(16))
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_array_equal(ours.steps, theirs.steps)
    state, cloud = torch.zeros(3, 1, 4), torch.zeros(3, 1, 0, 3)
    noise = torch.randn(3, policy.horizon, 2)
    torch.testing.assert_close(
        learner.policy.act(state, cloud, noise), policy.act(state, cloud, noise)
    )


def test_corrections_stay_within_their_limits(policy: DiffusionPolicy, config: TrainConfig) -> None:
    residual = ResidualPolicy(policy, config, 0)
    torch.nn.init.normal_(residual.actor[-1].weight, std=5.0)
    condition, noise = torch.randn(50, residual.condition_dim), torch.randn(50, 2, 2)
    base = 2.0 * torch.rand(50, 2, 2) - 1.0
    with torch.no_grad():
        chunk, log_prob = residual.correct(condition, base, noise)
    assert float(chunk.abs().max()) <= 1.0 and log_prob.isfinite().all()
    assert 0.1 < float((chunk - base).abs().max()) <= RESIDUAL + 1e-6
    trained = [name for name, weight in residual.named_parameters() if weight.requires_grad]
    assert trained and all(name.startswith("actor.") for name in trained)


def test_the_ring_gives_back_what_happened(
    learner: wsrl.WsrlLearner, pool: EnvironmentPool
) -> None:
    """Small enough to wrap several times, also within a run."""
    buffer, worlds = ReplayBuffer(learner.policy, 150), source(pool)
    known: dict[tuple[float, ...], tuple[Trajectory, int]] = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        runs = worlds.trajectories(learner.policy, WORLDS, 10)
        buffer.add_runs(runs, DISCOUNT, generator)
        for run in runs:
            for row in range(len(run)):
                known[(*run.states[row].ravel().tolist(), float(run.times[row]))] = (run, row)
    assert 100 < len(buffer) < 150
    batch = buffer.sample(300, generator)
    for index in range(300):
        key = (*batch.now.states[index].ravel().tolist(), float(batch.now.times[index]))
        run, row = known[key]
        assert float(batch.rewards[index]) == run.rewards[row]
        assert float(batch.discounts[index]) == float(run.discounts(DISCOUNT)[row])
        np.testing.assert_array_equal(batch.then.states[index], run.states[row + 1])
        np.testing.assert_array_equal(batch.actions[index], run.chains[row, -1])
        np.testing.assert_array_equal(batch.now.base[index], run.chains[row, -2].clip(-1, 1))
        if row + 1 < len(run):
            np.testing.assert_array_equal(batch.then.base[index], run.chains[row + 1, -2])
    with pytest.raises(ValueError, match="don't fit"):
        ReplayBuffer(learner.policy, 10).add_runs(runs, DISCOUNT, generator)


def test_offline_data_keeps_its_rows(learner: wsrl.WsrlLearner, data: Transitions) -> None:
    buffer = ReplayBuffer(learner.policy, len(data.times))
    buffer.add_transitions(data, torch.Generator().manual_seed(0))
    assert len(buffer) == len(data.rows)
    batch = buffer.sample(200, torch.Generator().manual_seed(0))
    for index in range(200):
        same = (data.states == batch.now.states[index]).flatten(1).all(dim=1)
        row = int(torch.nonzero(same & (data.times == batch.now.times[index]))[0])
        assert float(batch.rewards[index]) == float(data.rewards[row])
        torch.testing.assert_close(batch.then.states[index], data.states[data.following[row]])


def test_recalibration_leaves_the_actor_alone(
    learner: wsrl.WsrlLearner, buffer: ReplayBuffer
) -> None:
    before = {key: value.clone() for key, value in learner.policy.state_dict().items()}
    critics = {key: value.clone() for key, value in learner.critics.state_dict().items()}
    temperature = float(learner.log_temperature.detach())
    logs = learner.update(buffer, 3, critic_only=True)
    assert set(logs) == {"critic_loss", "q"}
    for key, value in learner.policy.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert float(learner.log_temperature.detach()) == temperature
    assert any(not torch.equal(v, critics[k]) for k, v in learner.critics.state_dict().items())
    logs = learner.update(buffer, 1, critic_only=False)
    assert logs["entropy"] > learner.target_entropy and logs["temperature"] > 0.0
    changed = [k for k, v in learner.policy.state_dict().items() if not torch.equal(v, before[k])]
    assert changed and all(key.startswith("actor.") for key in changed)
    assert all(weight.requires_grad for weight in learner.critics.parameters())


@pytest.mark.slow
def test_a_short_run_does_not_lose_success(
    pool: EnvironmentPool,
    policy: DiffusionPolicy,
    data: Transitions,
    config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wsrl, "BATCH", 64)
    monkeypatch.setattr(wsrl, "ACTOR_RATE", 1e-3)
    monkeypatch.setattr(wsrl, "CRITIC_RATE", 1e-3)
    told: list[tuple[int, dict[str, float]]] = []
    _, curve = wsrl.finetune(
        pool,
        policy,
        data,
        config,
        1800,
        lambda steps, logs: told.append((steps, logs)),
        max_steps=MAX_STEPS,
        warmup_steps=600,
        utd=1.0,
        evaluate_every=900,
        seeds=range(64),
    )
    steps, success = zip(*curve, strict=True)
    assert steps[0] == 0 and steps[-1] >= 1800 and list(steps) == sorted(steps)
    assert success[-1] >= success[0]  # 4 of 4 seeds of the worlds gain 7 to 45 points
    # Nothing but the critics learns before the warm-up is over.
    assert all("actor_loss" not in logs for now, logs in told if now <= 600)
    assert "actor_loss" in told[-1][1]
