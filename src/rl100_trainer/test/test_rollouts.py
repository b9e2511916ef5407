"""Rollouts in worker processes: what comes back is what the environments did.

Pins: every seed is run once and its result is independent of how many worlds there are; collected
episodes replay to the same end when their executed actions are repeated; recorded chains have the
log-probabilities that the policy computes again; on-policy runs are cut at episode ends only, their
observations follow each other; a world that fails is told in one sentence and leaves no process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics
from rl100_trainer.rollouts.diagnosis import diagnose_critics
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.trajectory import stack, trajectory_of_episode
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.runs import load_policy
from rl100_trainer.testing import (
    CHUNK,
    MAX_STEPS,
    REACH_SPEC,
    REACH_TASK,
    ReachEnv,
    ReachFactory,
    reach_demonstrations,
)

DISCOUNT = 0.95
SETTINGS = (
    "model.widths=[32]",
    "model.features=16",
    "diffusion.steps=3",
    "diffusion.sigma_min=0.1",
    "diffusion.sigma_max=0.5",
    "imitation.steps=150",
    "distill.steps=5",
    "run.device=cpu",
)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load_config(None, SETTINGS)


@pytest.fixture(scope="module")
def policy(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> DiffusionPolicy:
    """A policy that reaches the goal now and then."""
    run = tmp_path_factory.mktemp("policy")
    result = train_imitation(config, REACH_TASK, reach_demonstrations(range(40), 0.3), run)
    return load_policy(result.bundle, config, REACH_SPEC)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvironmentPool]:
    with EnvironmentPool(ReachFactory(), REACH_SPEC, 6, workers=2) as pool:
        yield pool


def source(pool: EnvironmentPool) -> VectorSource:
    return VectorSource(pool, max_steps=MAX_STEPS, period_ns=50_000_000, discount=DISCOUNT)


def test_every_seed_is_run_once(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    outcomes = source(pool).evaluate(policy, "k_step", range(20))
    assert outcomes.success.shape == (20,)
    assert (outcomes.steps >= 1).all() and (outcomes.steps <= MAX_STEPS).all()
    assert (outcomes.steps[~outcomes.success] == MAX_STEPS).all()


def test_collected_episodes_repeat(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    seeds = list(range(100, 111))
    episodes = source(pool).collect(policy, seeds)
    env = ReachEnv()
    for seed, episode in zip(seeds, episodes, strict=True):
        env.reset(seed=seed)
        for row in range(len(episode)):
            np.testing.assert_array_equal(env.observe()["state"], episode.states[row])
            env.position = env.position + episode.actions[row]
        assert (episode.outcome == "success") == bool(episode.rewards[-1] == 1.0)
        assert episode.decision.sum() == len(episode.chains if episode.chains is not None else [])


def test_collecting_tells_how_many_have_ended_and_can_be_stopped(
    pool: EnvironmentPool, policy: DiffusionPolicy
) -> None:
    rollouts, told = source(pool), []
    first = rollouts.collect(policy, range(100, 111), told.append)
    assert told == sorted(told) and told[-1] == 11 and len(told) > 1

    def stop(ended: int) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        rollouts.collect(policy, range(100, 111), stop)
    again = rollouts.collect(policy, range(100, 111))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours.actions, theirs.actions)


def test_recorded_log_probs_are_recomputed(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    runs = source(pool).trajectories(policy, 6, 12)
    chains = stack(runs, "chains").transpose(0, 1)
    condition = policy.condition(stack(runs, "states"), stack(runs, "clouds"))
    with torch.no_grad():
        again = policy.chain_log_probs(condition, chains)
    recorded = stack(runs, "log_probs").transpose(0, 1)
    assert float((again - recorded).abs().max()) < 1e-3


def test_runs_are_cut_at_episode_ends(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    runs = source(pool).trajectories(policy, 6, 20)
    assert sum(len(run) for run in runs) == 6 * 20
    for run in runs:
        assert len(run.states) == len(run) + 1
        assert (np.diff(run.times) > 0).all() or run.ended
        if run.ended:
            assert float(run.discounts(DISCOUNT)[-1]) == 0.0
        # Within a run the goal stays where it is: no other episode got in.
        goals = run.states[: len(run), 0, 2:]
        assert (goals == goals[0]).all()


def test_runs_go_on_where_they_were(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    rollouts = source(pool)
    first, second = (rollouts.trajectories(policy, 6, 3) for _ in range(2))
    for run in first:
        if not run.ended:
            assert any(np.array_equal(run.states[-1], other.states[0]) for other in second)


def test_an_episode_becomes_a_trajectory(pool: EnvironmentPool, policy: DiffusionPolicy) -> None:
    episode = source(pool).collect(policy, [7])[0]
    run = trajectory_of_episode(episode, DISCOUNT, CHUNK, MAX_STEPS)
    assert run.ended and len(run) == int(episode.decision.sum())
    rows = np.flatnonzero(episode.decision)
    for index, row in enumerate(rows):
        rewards = episode.rewards[row : row + CHUNK]
        wanted = sum(r * DISCOUNT**j for j, r in enumerate(rewards))
        assert run.rewards[index] == pytest.approx(wanted)
        assert run.steps[index] == len(rewards)


def test_an_episode_can_be_continued_from_any_decision(
    pool: EnvironmentPool, policy: DiffusionPolicy
) -> None:
    """All but the last decision as a beginning, and the last one again: the same end."""
    rollouts, seeds = source(pool), list(range(200, 230))
    episodes = rollouts.collect(policy, seeds)
    assert any(episode.outcome == "success" for episode in episodes)
    chunks = []
    for episode in episodes:
        assert episode.chains is not None
        chunks.append(policy.executed(torch.from_numpy(episode.chains[:, -1])).numpy())
    last = np.stack([chunk[-1] for chunk in chunks])
    returns = rollouts.continue_from(policy, seeds, [chunk[:-1] for chunk in chunks], last)
    for episode, found in zip(episodes, returns, strict=True):
        first = int(np.flatnonzero(episode.decision)[-1])
        rewards = episode.rewards[first:]
        wanted = sum(r * DISCOUNT**j for j, r in enumerate(rewards))
        assert found == pytest.approx(wanted)


def test_a_critic_that_knows_ranks_within_states(
    pool: EnvironmentPool, policy: DiffusionPolicy, config: TrainConfig
) -> None:
    """A critic that measures how near a chunk gets to the goal does better than chance."""
    rollouts, seeds = source(pool), list(range(300, 320))
    episodes = rollouts.collect(policy, seeds)
    critics = OfflineCritics(policy, config.critic, 0)

    def nearness(
        states: torch.Tensor,
        clouds: torch.Tensor,
        images: torch.Tensor,
        times: torch.Tensor,
        actions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moved = states[:, 0, :2] + policy.normaliser.physical_action(actions).sum(dim=1)
        value = -(moved - states[:, 0, 2:]).norm(dim=1)
        return value, value

    critics.q = nearness  # type: ignore[assignment]
    found = diagnose_critics(
        rollouts, policy, critics, episodes, seeds, MAX_STEPS, states=40, chunks=4, continuations=4
    )
    assert found.states > 5 and found.ranking > 0.6


def test_demonstrations_have_no_chains() -> None:
    (episode,) = reach_demonstrations([0], 0.2)
    with pytest.raises(ContractError, match="reach_0: has no denoising chain"):
        trajectory_of_episode(episode, DISCOUNT, CHUNK, MAX_STEPS)


def test_a_process_that_dies_is_told() -> None:
    with EnvironmentPool(ReachFactory(), REACH_SPEC, 2, workers=1) as pool:
        pool.batch.command[:] = 2
        pool.batch.actions[:] = 0.0
        (process,) = pool._processes
        process.kill()
        process.join()
        with pytest.raises(ContractError, match="ended by itself"):
            pool.step()
    assert process not in multiprocessing.active_children()
