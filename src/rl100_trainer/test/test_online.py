"""The online stage's safeguards, each with something that would slip through without it.

Pins: the policy that was best in the evaluations is the one that is kept, the later one at equal
success, unless the last one is better on other start states; recorded log-probabilities that aren't
the policy's are refused; a learning rate that is far too high ends a round early and is taken back;
an interrupted stage keeps the rounds that it has done; two lucky evaluations don't end it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.checkpoint import load_checkpoint
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import ignore_progress, never_stop
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import Outcomes, Sampler
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.runlog import RunLog
from rl100_trainer.stages.loop import RunContext
from rl100_trainer.stages.online import OnlineLearner
from rl100_trainer.stages.online_stage import OnlineStage
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import (
    MAX_STEPS,
    PERIOD_NS,
    REACH_SPEC,
    ReachFactory,
)

DISCOUNT = 0.95
EVERY = 5  # rounds between two evaluations
SETTINGS = (
    "model.widths=[16]",
    "model.features=8",
    "diffusion.steps=3",
    f"critic.discount={DISCOUNT}",
    "distill.steps=2",
    "online.environments=8",
    "online.decisions=4",
    "run.device=cpu",
)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl100_trainer.stages.online_stage.EVALUATE_EVERY", EVERY)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvironmentPool]:
    with EnvironmentPool(ReachFactory(), REACH_SPEC, 8, workers=1) as pool:
        yield pool


class Scripted(VectorSource):
    """Evaluations come from a list; everything else is real."""

    script: Sequence[float] = ()

    def evaluate(self, policy: DiffusionPolicy, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        self.seen = [*getattr(self, "seen", []), policy.denoiser.leave.bias.detach().clone()]  # type: ignore[union-attr, operator]
        rate = self.script[len(self.seen) - 1]
        success = np.arange(len(seeds)) < round(rate * len(seeds))
        return Outcomes(success, np.ones(len(seeds), dtype=np.int64))


def source(pool: EnvironmentPool) -> Scripted:
    return Scripted(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)


def context(folder: Path, log: RunLog) -> RunContext:
    return RunContext("online", folder, log, "data", 1, ignore_progress, never_stop)


def stage(pool: EnvironmentPool, script: Sequence[float], config: TrainConfig) -> OnlineStage:
    policy = make_policy(REACH_SPEC, config)
    value = Critic(REACH_SPEC, policy.normaliser, with_action=False)
    rollouts = source(pool)
    rollouts.script = script
    return OnlineStage(
        policy, value, rollouts, config, range(10), range(10, 130), fresh_value=False
    )


@pytest.mark.parametrize(
    ("script", "best"),
    [
        ((0.5, 0.9, 0.9), 2),
        # Then the last one and the best one on other start states.
        ((0.5, 0.9, 0.2, 0.7, 0.8), 1),
        ((0.5, 0.9, 0.8, 0.8, 0.7), 2),
    ],
)
def test_the_best_policy_is_kept(
    pool: EnvironmentPool, tmp_path: Path, script: tuple[float, ...], best: int
) -> None:
    # About 8 worlds x 4 decisions x 2 steps a round: evaluations at 0, 5 and the last round.
    config = load_config(None, (*SETTINGS, f"online.env_steps={64 * EVERY * 2 - 50}"))
    online = stage(pool, (*script, *[0.0] * 5), config)
    with RunLog(tmp_path) as log:
        online.run(context(tmp_path, log))
    kept = online.policy.denoiser.leave.bias  # type: ignore[union-attr]
    seen = online.source.seen  # type: ignore[attr-defined]
    assert len(seen) == len(script)
    assert torch.equal(kept, seen[best])  # type: ignore[arg-type]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen[:3], 2))


@pytest.mark.parametrize(
    ("script", "evaluations", "confirming"),
    [
        ((0.5, 1.0, 1.0, 1.0), 4, [3]),
        ((0.5, 1.0, 1.0, 0.9, 0.5, 1.0, 1.0, 1.0), 8, [3, 7]),  # lucky twice: it goes on
        # The steps are over; then the last one and the best one on other starts.
        pytest.param((1.0, 0.5) * 5, 12, [10, 11], marks=pytest.mark.slow),
    ],
)
def test_the_stage_ends_early_only_when_other_starts_confirm_it(
    pool: EnvironmentPool,
    tmp_path: Path,
    script: tuple[float, ...],
    evaluations: int,
    confirming: list[int],
) -> None:
    config = load_config(None, (*SETTINGS, f"online.env_steps={64 * EVERY * 9 - 150}"))
    online = stage(pool, (*script, *[0.0] * 9), config)
    asked: list[int] = []
    evaluate = online.source.evaluate

    def counted(policy: DiffusionPolicy, sampler: Sampler, seeds: Sequence[int]) -> Outcomes:
        asked.append(seeds[0])
        return evaluate(policy, sampler, seeds)

    online.source.evaluate = counted  # type: ignore[method-assign]
    with RunLog(tmp_path) as log:
        online.run(context(tmp_path, log))
    assert len(asked) == evaluations
    assert online.finished == (evaluations < 12)
    assert [i for i, first in enumerate(asked) if first == online.others[0]] == confirming


def test_an_interrupted_stage_keeps_its_rounds(pool: EnvironmentPool, tmp_path: Path) -> None:
    config = load_config(None, (*SETTINGS, "online.env_steps=100000"))
    online = stage(pool, [0.0] * 10, config)
    calls = iter(range(100))
    with RunLog(tmp_path) as log:
        stopping = dataclasses.replace(context(tmp_path, log), stop=lambda: next(calls) >= 3)
        with pytest.raises(Interrupted, match="the same command goes on"):
            online.run(stopping)
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint is not None and checkpoint.state.step == 3
    again = stage(pool, [0.0] * 10, config)
    again.restore(checkpoint)
    assert again.round == 3 and again.env_steps == online.env_steps
    assert torch.equal(
        again.policy.denoiser.leave.bias,  # type: ignore[union-attr, arg-type]
        online.policy.denoiser.leave.bias,  # type: ignore[union-attr, arg-type]
    )


def test_log_probs_of_another_policy_are_refused(pool: EnvironmentPool) -> None:
    config = load_config(None, SETTINGS)
    policy = make_policy(REACH_SPEC, config)
    value = Critic(REACH_SPEC, policy.normaliser, with_action=False)
    learner = OnlineLearner(policy, value, config, 0)
    runs = source(pool).trajectories(policy, 8, 4)
    wrong = [dataclasses.replace(run, log_probs=run.log_probs + np.float32(0.01)) for run in runs]
    with pytest.raises(ContractError, match="recorded with another policy"):
        learner.update(wrong, 0.0)
    lost = [dataclasses.replace(run, log_probs=run.log_probs * np.nan) for run in runs]
    with pytest.raises(ContractError, match="differ from the policy's by inf"):
        learner.update(lost, 0.0)
    assert learner.update(runs, 0.0)["recomputed_difference"] < 1e-3


def test_a_rate_that_is_far_too_high_is_taken_back(pool: EnvironmentPool) -> None:
    config = load_config(None, (*SETTINGS, "online.learning_rate=0.1"))
    policy = make_policy(REACH_SPEC, config)
    value = Critic(REACH_SPEC, policy.normaliser, with_action=False)
    learner = OnlineLearner(policy, value, config, 0)
    before = learner.pace
    logs = learner.update(source(pool).trajectories(policy, 8, 4), 0.0)
    assert logs["kl_stopped"] == 1.0 and logs["kl_reached"] > 0.04
    assert learner.pace < before
    frozen = [p.clone() for p in policy.parameters()]
    learner.update(source(pool).trajectories(policy, 8, 4), 0.0, critic_only=True)
    assert all(torch.equal(a, b) for a, b in zip(frozen, policy.parameters(), strict=True))
