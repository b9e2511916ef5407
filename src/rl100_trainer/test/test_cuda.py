"""Training and sampling on a GPU; skipped where PyTorch sees none.

Pins: the same weights and the same noise give the same actions and log-probabilities on a GPU as
on a CPU, from clouds and from images; all stages run there, and an interrupted run
goes on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import Interrupted
from rl100_trainer.config import load_config
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.source import decide
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.iterate import IterativeTraining
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import (
    MAX_STEPS,
    PERIOD_NS,
    REACH_SPEC,
    REACH_TASK,
    ReachFactory,
    reach_demonstrations,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")

SETTINGS = (
    "model.widths=[64,64]",
    "model.features=32",
    "diffusion.steps=3",
    "critic.discount=0.95",
    "imitation.steps=40",
    "distill.steps=20",
    "critic.steps=40",
    "offline.iterations=1",
    "offline.rollouts=20",
    "offline.phases=1",
    "offline.steps=5",
    "offline.check_episodes=20",
    "online.env_steps=2000",
    "online.environments=8",
    "online.decisions=8",
    "run.checkpoint_every=10",
    "run.device=cuda",
)


def spec(images: bool) -> PolicySpec:
    """Clouds of 64 points, or images of 48 x 64 pixels, as the DP3 and DP encoders see them."""
    return PolicySpec(
        n_obs_steps=2,
        state_dim=4,
        num_points=0 if images else 64,
        n_action_steps=4,
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        action_is_delta=True,
        image_shape=(48, 64) if images else None,
    )


@pytest.mark.parametrize("images", [False, True], ids=["clouds", "images"])
def test_a_gpu_samples_what_the_processor_samples(images: bool) -> None:
    made = spec(images)
    policy = make_policy(made, load_config(None, ["model.features=32"])).eval()
    generator = torch.Generator().manual_seed(1)
    observed = []
    for name in ("states", "clouds", "images"):
        shape = (16, *made.observation_shapes[name])
        if name == "images":
            observed.append(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        else:
            observed.append(torch.randn(shape, generator=generator))
    arrays = [tensor.numpy() for tensor in observed]
    found = []
    for device in ("cpu", "cuda"):
        noise = torch.Generator().manual_seed(2)
        found.append(decide(policy.to(device), arrays, noise, sampler="k_step", stochastic=True))
    for name in ("actions", "chains", "log_probs"):
        cpu, gpu = (torch.as_tensor(getattr(each, name)) for each in found)
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3)


def test_all_stages_run_on_a_gpu_and_go_on_after_an_interruption(tmp_path: Path) -> None:
    demonstrations = reach_demonstrations(range(60))
    config = load_config(None, SETTINGS)
    with EnvironmentPool(ReachFactory(), REACH_SPEC, 8, workers=1) as pool:
        source = VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=0.95)
        calls = iter(range(10_000))

        def run(**options: object) -> IterativeTraining:
            return IterativeTraining(  # type: ignore[misc]
                config,
                REACH_TASK,
                demonstrations,
                source,
                tmp_path,
                **options,  # type: ignore[arg-type]
            )

        with pytest.raises(Interrupted):
            run(stop=lambda: next(calls) >= 90).run()
        result = run().run()
        assert run().load("online/policy").normaliser.state_mean.is_cuda
    assert (result.bundle / WEIGHTS).is_file()
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert len(steps["iteration_1:improvement"]["verdicts"]) == 1
