"""Numbers that aren't finite end a training in one sentence, before they reach what is kept.

Pins: imitation stops at the step whose gradient is not finite, and the checkpoint on the disc is
that of the last good step; critics stop; an online update with a NaN advantage is no small KL.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rl100_contracts.errors import ContractError
from rl100_trainer.checkpoint import CHECKPOINT, load_checkpoint
from rl100_trainer.config import load_config
from rl100_trainer.networks.critics import Critic
from rl100_trainer.progress import ignore_progress, never_stop
from rl100_trainer.rollouts.trajectory import Trajectory
from rl100_trainer.runlog import RunLog
from rl100_trainer.stages.improvement import fit_critics
from rl100_trainer.stages.loop import Phase, RunContext
from rl100_trainer.stages.online import OnlineLearner
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import REACH_SPEC, REACH_TASK, reach_demonstrations

SETTINGS = (
    "model.widths=[16]",
    "model.features=8",
    "diffusion.steps=3",
    "critic.steps=4",
    "run.device=cpu",
)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_imitation_keeps_the_last_good_checkpoint(tmp_path: Path, bad: float) -> None:
    network = torch.nn.Linear(2, 1)
    phase = Phase(
        "denoiser",
        network,
        dict(network.named_parameters()),
        steps=10,
        rate=1e-3,
        ema_decay=0.9,
        seed=0,
    )
    steps = itertools.count(1)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        factor = bad if next(steps) == 4 else 1.0
        return factor * network(torch.ones(2)).square().sum(), {}

    with RunLog(tmp_path) as log:
        context = RunContext("il", tmp_path, log, "data", 1, ignore_progress, never_stop)
        with pytest.raises(ContractError, match="phase denoiser or its gradient is not finite at"):
            phase.run(loss, context)
    kept = load_checkpoint(tmp_path / CHECKPOINT)
    assert kept is not None and kept.state.step == 3
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.part("policy").values())
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())


def test_critics_stop() -> None:
    config = load_config(None, SETTINGS)
    policy = make_policy(REACH_SPEC, config)
    episodes = reach_demonstrations(range(4))
    fit_critics(policy, config, REACH_TASK, episodes, seed=0, on_step=lambda *_: None)
    episodes[1].rewards[0] = math.nan
    with pytest.raises(ContractError, match="critics or of their model is not finite after 1 of 4"):
        fit_critics(policy, config, REACH_TASK, episodes, seed=0, on_step=lambda *_: None)


def trajectory(decisions: int, reward: float) -> Trajectory:
    """Decisions of a policy that has not been asked: enough for what is computed of them."""
    rng = np.random.default_rng(0)
    rewards = np.zeros(decisions, dtype=np.float32)
    rewards[decisions // 2] = reward
    return Trajectory(
        states=rng.normal(size=(decisions + 1, 1, 4)).astype(np.float32),
        clouds=np.zeros((decisions + 1, 1, 0, 3), dtype=np.float32),
        images=np.zeros((decisions + 1, 1, 0, 0, 3), dtype=np.uint8),
        times=np.linspace(0.0, 1.0, decisions + 1, dtype=np.float32),
        chains=rng.normal(size=(decisions, 4, 2, 2)).astype(np.float32),
        log_probs=np.zeros((decisions, 3), dtype=np.float32),
        rewards=rewards,
        steps=np.full(decisions, 2, dtype=np.int64),
        ended=True,
    )


@pytest.mark.parametrize("reward", [1.0, math.nan])
def test_a_nan_is_no_small_kl(monkeypatch: pytest.MonkeyPatch, reward: float) -> None:
    """max(0, nan) is 0: left to the KL stop, a policy of NaNs would learn faster and faster."""
    config = load_config(None, SETTINGS)
    policy = make_policy(REACH_SPEC, config)
    learner = OnlineLearner(
        policy, Critic(REACH_SPEC, policy.normaliser, with_action=False), config, 0
    )
    monkeypatch.setattr(learner, "recomputed_difference", lambda data: 0.0)
    if math.isfinite(reward):
        assert math.isfinite(learner.update([trajectory(16, reward)], 0.0)["kl_reached"])
        return
    before = learner.pace
    with pytest.raises(ContractError, match=r"value_loss.* of the online update is not finite"):
        learner.update([trajectory(16, reward)], 0.0)
    assert learner.pace == before
