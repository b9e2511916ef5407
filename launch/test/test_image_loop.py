"""Colour images through real processes: the simulator's camera, a policy that sees it, and the bag.

Pins: a task that observes an image runs without perception; the recorded bag gives bit for bit the
images that the policy saw; the ROS graph in lockstep and the in-process environment give the same
episode; what the recorder wrote can be trained on.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from rl100.demonstrations import record_direct
from rl100.evaluate import evaluate_direct
from rl100.parity import check_parity
from rl100.session import Session
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.task import load_task
from rl100_sim.expert import ExpertNoise
from rl100_trainer.config import load_config
from rl100_trainer.data.bags import read_episode
from rl100_trainer.stages.imitation import train_imitation

pytestmark = pytest.mark.integration

SEED = 7
SETTINGS = ("imitation.steps=4", "imitation.batch_size=8", "distill.steps=4", "run.device=cpu")


def test_an_episode_with_images_through_ros(tmp_path: Path) -> None:
    task = load_task("push_rgb")
    demonstrations = record_direct(task, [0], ExpertNoise.demonstration())
    trained = train_imitation(load_config(None, SETTINGS), task, demonstrations, tmp_path / "run")
    data = tmp_path / "data"
    nodes = describe("demo", {"task": "push_rgb", "data": str(data), "seed": str(SEED)})
    assert "rl100_perception" not in [node.name for node in nodes]
    with ExitStack() as stack:
        system = stack.enter_context(RunningSystem(nodes, log_dir=tmp_path / "logs"))
        session = stack.enter_context(Session(task, system.check))
        session.load_bundle(str(trained.bundle))
        session.set_parameters("rl100_policy", sampler="k_step", stochastic=False)
        session.set_mode("policy")
        (result,) = session.run_episodes([SEED], record=True)
    path = Path(result.path)
    parity = check_parity(path, task)
    assert parity.compared >= 2 and not parity.different
    episode = read_episode(path, task)
    assert episode.images.shape[1:] == (1, 64, 64, 3) and episode.clouds.size == 0
    assert np.ptp(episode.images.reshape(len(episode), -1), axis=0).max() > 50  # things move
    (direct,) = evaluate_direct(trained.bundle, task, "k_step", [SEED], noise_seed=SEED).results
    assert (direct.success, direct.steps) == (result.success, result.steps)
