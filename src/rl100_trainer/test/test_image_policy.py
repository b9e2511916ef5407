"""Policies that see colour images, from demonstrations to ONNX and through every RL stage.

Pins: random shifts move whole observations by whole pixels and draw nothing where there is no
image; images stay bytes until a batch is encoded, on disk too; the policy needs what only the image
shows; the exported graphs take uint8 images and do what the trained policy does; imitation, offline
and online stage and the WSRL baseline run on images, and resumed runs end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from rl100_contracts.bundle import WEIGHTS, verify_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task
from rl100_trainer import export
from rl100_trainer.baselines.replay import ReplayBuffer
from rl100_trainer.baselines.wsrl import WsrlLearner
from rl100_trainer.checkpoint import load_tensors, save_tensors
from rl100_trainer.config import TrainConfig, load_config
from rl100_trainer.data.dataset import EpisodeArrays, make_windows
from rl100_trainer.data.store import load_episodes, save_episodes
from rl100_trainer.data.transitions import make_transitions
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.decoders import unexplained
from rl100_trainer.networks.images import channels_first, shifted
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.networks.resnet import ResNet18
from rl100_trainer.rollouts.pool import EnvironmentPool
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.iterate import IterativeTraining
from rl100_trainer.stages.losses import imitation_loss
from rl100_trainer.stages.online import OnlineLearner
from rl100_trainer.stages.runs import make_policy
from rl100_trainer.testing import (
    IMAGE_SIZE,
    MAX_STEPS,
    PERIOD_NS,
    SEEN_REACH_SPEC,
    SEEN_REACH_TASK,
    SeenReachFactory,
    reach_demonstrations,
)

DISCOUNT = 0.95
TINY = (
    "model.widths=[32]",
    "model.features=16",
    "diffusion.steps=3",
    "diffusion.sigma_min=0.1",
    "imitation.steps=6",
    "imitation.batch_size=16",
    "distill.steps=6",
    f"critic.discount={DISCOUNT}",
    "critic.steps=6",
    "offline.iterations=1",
    "offline.rollouts=8",
    "offline.phases=1",
    "offline.steps=2",
    "offline.check_episodes=4",
    "online.env_steps=200",
    "online.environments=8",
    "online.decisions=4",
    "run.device=cpu",
)


def rgb_task(frames: int = 2) -> Task:
    """push_rgb with 16 x 16 images."""
    values = load_task("push_rgb").model_dump()
    values["observation"]["image"] |= {"height": 16, "width": 16}
    values["control"]["n_obs_steps"] = frames
    return Task.model_validate(values)


def rgb_episodes(task: Task, count: int = 4, length: int = 10) -> list[EpisodeArrays]:
    """Random images; the action follows their redness."""
    rng = np.random.default_rng(0)
    frames = task.control.n_obs_steps
    episodes = []
    for number in range(count):
        images = rng.integers(0, 256, (length, frames, 16, 16, 3), dtype=np.uint8)
        red = images[:, -1, :, :, 0].mean(axis=(1, 2)) / 255.0 - 0.5
        episodes.append(
            EpisodeArrays(
                episode_id=f"episode{number}",
                states=rng.normal(size=(length, frames, 4)).astype(np.float32),
                clouds=np.zeros((length, frames, 0, 3), dtype=np.float32),
                images=images,
                actions=np.stack([0.03 * red, -0.03 * red], axis=1).astype(np.float32),
                stamps=np.arange(length, dtype=np.int64) * 50_000_000,
                segment=np.zeros(length, dtype=np.int32),
                decision=np.ones(length, dtype=bool),
                mode=np.ones(length, dtype=np.uint8),
                rewards=np.eye(1, length, length - 1, dtype=np.float32)[0],
                outcome="success",
            )
        )
    return episodes


def cloud_episodes(task: Task) -> list[EpisodeArrays]:
    """Two episodes of the cloud task that hold nothing of interest."""
    frames, points, length = task.control.n_obs_steps, task.observation.num_points, 6
    return [
        EpisodeArrays(
            episode_id=f"episode{number}",
            states=np.zeros((length, frames, 4), dtype=np.float32),
            clouds=np.zeros((length, frames, points, 3), dtype=np.float32),
            actions=np.zeros((length, 2), dtype=np.float32),
            stamps=np.arange(length, dtype=np.int64) * 50_000_000,
            segment=np.zeros(length, dtype=np.int32),
            decision=np.ones(length, dtype=bool),
            mode=np.ones(length, dtype=np.uint8),
            rewards=np.zeros(length, dtype=np.float32),
            outcome="success",
        )
        for number in range(2)
    ]


@pytest.fixture
def config() -> TrainConfig:
    return load_config(None, TINY)


def test_shifts_move_all_frames_of_an_observation_alike() -> None:
    images = torch.randint(0, 256, (40, 2, 64, 96, 3), dtype=torch.uint8)
    moved = shifted(images, torch.Generator().manual_seed(0))
    assert moved.dtype == torch.uint8 and moved.shape == images.shape
    found = set()
    for before, after in zip(images, moved, strict=True):
        padded = np.pad(before.numpy(), ((0, 0), (2, 2), (3, 3), (0, 0)), mode="edge")
        fits = [
            (y, x)
            for y in range(5)
            for x in range(7)
            if np.array_equal(padded[:, y : y + 64, x : x + 96], after.numpy())
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 15
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert shifted(torch.zeros(3, 1, 0, 0, 3, dtype=torch.uint8), generator).numel() == 0
    assert torch.equal(generator.get_state(), before)


def test_what_is_not_decoded_is_a_part_of_the_variance() -> None:
    images = torch.rand(64, 3, 32, 32)
    small = torch.nn.functional.avg_pool2d(images, 2)
    differences = small - small.mean(dim=0)
    assert float(unexplained(differences, images)) == pytest.approx(0.0, abs=1e-6)
    assert float(unexplained(0.5 * differences, images)) == pytest.approx(0.25, abs=1e-5)
    nothing = torch.zeros_like(small)
    assert float(unexplained(nothing, images)) == pytest.approx(1.0, abs=1e-5)
    alike = images[:1].expand(64, -1, -1, -1)  # nothing to tell: no division by nothing
    assert float(unexplained(nothing, alike)) == pytest.approx(0.0, abs=1e-6)


def test_images_stay_bytes_until_they_are_encoded(tmp_path: Path) -> None:
    task = rgb_task()
    episodes = rgb_episodes(task)
    save_episodes(tmp_path / "episodes.npz", episodes)
    loaded = load_episodes(tmp_path / "episodes.npz")
    np.testing.assert_array_equal(loaded[0].images, episodes[0].images)
    windows = make_windows(loaded, PolicySpec.of_task(task), 4)
    assert windows.images.dtype == torch.uint8 and windows.images.shape == (40, 2, 16, 16, 3)
    one = channels_first(windows.images[:1])
    assert one.shape == (1, 2, 3, 16, 16) and 0.0 <= float(one.min()) <= float(one.max()) <= 1.0
    assert float(one[0, 1, 2, 3, 4]) == pytest.approx(int(windows.images[0, 1, 3, 4, 2]) / 255)
    wrong = replace(loaded[0], images=loaded[0].images[:, :, :8])
    with pytest.raises(ContractError, match="episode0: images have shape"):
        make_windows([wrong], PolicySpec.of_task(task), 4)


def test_episodes_without_images_are_stored_as_ever(tmp_path: Path) -> None:
    episodes = reach_demonstrations([0])
    save_episodes(tmp_path / "episodes.npz", episodes)
    with np.load(tmp_path / "episodes.npz") as stored:
        assert not [name for name in stored if "images" in name]
    (loaded,) = load_episodes(tmp_path / "episodes.npz")
    assert loaded.images.shape == (len(loaded), 1, 0, 0, 3)


def test_the_policy_looks_at_the_image(config: TrainConfig) -> None:
    policy = make_policy(SEEN_REACH_SPEC, config)
    episodes = reach_demonstrations(range(4), seen=True)
    windows = make_windows(episodes, SEEN_REACH_SPEC, policy.horizon)
    policy.normaliser.fit(SEEN_REACH_SPEC, windows.states, windows.clouds, windows.actions[:, 0])
    loss, parts = imitation_loss(policy, windows, config.imitation, torch.Generator())
    loss.backward()
    assert set(parts) == {"denoising", "reconstruction", "kl"}
    first = policy.encoder.image.backbone.conv1.weight.grad
    assert first is not None and float(first.abs().max()) > 0.0
    with torch.no_grad():
        codes = policy.condition(windows.states, windows.clouds, windows.images)
        blind = policy.condition(windows.states, windows.clouds, torch.zeros_like(windows.images))
    assert float((codes - blind).abs().max()) > 1e-3


@pytest.mark.parametrize("frames", [1, 2])
def test_imitation_ends_in_a_bundle_that_takes_bytes(
    tmp_path: Path, config: TrainConfig, frames: int
) -> None:
    task = rgb_task(frames)
    result = train_imitation(config, task, rgb_episodes(task), tmp_path / "run")
    manifest = verify_bundle(result.bundle, task)
    assert manifest.image_shape == [16, 16] and manifest.num_points == 0
    assert manifest.export_parity < export.PARITY_LIMIT
    session = onnxruntime.InferenceSession(result.bundle / "policy.onnx")
    inputs = {node.name: (node.type, node.shape[1:]) for node in session.get_inputs()}
    assert inputs == {
        "state": ("tensor(float)", [frames, 4]),
        "image": ("tensor(uint8)", [frames, 16, 16, 3]),
        "noise": ("tensor(float)", [4, 2]),
    }
    shapes = {name: list(shape) for name, shape in manifest.observation_shapes.items()}
    assert shapes == {name: shape for name, (_, shape) in inputs.items() if name != "noise"}


@pytest.mark.slow
def test_the_encoder_starts_from_given_weights(tmp_path: Path, config: TrainConfig) -> None:
    task = rgb_task()
    weights = ResNet18().state_dict()
    save_tensors(tmp_path / "resnet18.safetensors", weights)
    still = config.model_copy(
        update={"imitation": config.imitation.model_copy(update={"steps": 1})}
    )
    result = train_imitation(
        still,
        task,
        rgb_episodes(task),
        tmp_path / "run",
        image_weights=tmp_path / "resnet18.safetensors",
    )
    trained = load_tensors(result.bundle / WEIGHTS)["encoder.image.backbone.conv1.weight"]
    assert float((trained - weights["conv1.weight"]).abs().max()) < 0.01  # one step away

    def killed() -> bool:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_imitation(
            still,
            task,
            rgb_episodes(task),
            tmp_path / "killed",
            image_weights=tmp_path / "resnet18.safetensors",
            stop=killed,
        )
    # Resumed without naming them: it began with them.
    resumed = train_imitation(still, task, rgb_episodes(task), tmp_path / "killed")
    again = load_tensors(resumed.bundle / WEIGHTS)["encoder.image.backbone.conv1.weight"]
    assert torch.equal(again, trained)
    cloud_task = load_task("push")
    with pytest.raises(ContractError, match=r"any\.safetensors: task 'push' observes no image"):
        train_imitation(
            still,
            cloud_task,
            cloud_episodes(cloud_task),
            tmp_path / "other",
            image_weights=tmp_path / "any.safetensors",
        )


def test_a_graph_that_looks_at_other_pixels_is_not_faithful(
    tmp_path: Path, config: TrainConfig
) -> None:
    """The parity check sees real images: one of zeros would let any encoder pass."""
    task = rgb_task()
    policy: DiffusionPolicy = make_policy(PolicySpec.of_task(task), config)
    windows = make_windows(rgb_episodes(task), policy.spec, policy.horizon)
    export.export_graphs(policy, tmp_path)
    assert export.measure_parity(policy, tmp_path, windows.observed) < export.PARITY_LIMIT
    with torch.no_grad():
        policy.encoder.image.backbone.conv1.weight.mul_(-1.0)
    assert export.measure_parity(policy, tmp_path, windows.observed) > export.PARITY_LIMIT


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvironmentPool]:
    with EnvironmentPool(SeenReachFactory(), SEEN_REACH_SPEC, 8, workers=1) as pool:
        yield pool


def training(pool: EnvironmentPool, run: Path) -> IterativeTraining:
    source = VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    config = load_config(None, TINY)
    demonstrations = reach_demonstrations(range(20), seen=True)
    return IterativeTraining(config, SEEN_REACH_TASK, demonstrations, source, run)


def test_rollouts_carry_what_the_world_showed(pool: EnvironmentPool, config: TrainConfig) -> None:
    source = VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    policy = make_policy(SEEN_REACH_SPEC, config)
    (episode, *_) = source.collect(policy, range(8))
    environment = SeenReachFactory()()
    seen, _ = environment.reset(seed=0)
    assert episode.images.shape == (len(episode), 1, IMAGE_SIZE, IMAGE_SIZE, 3)
    np.testing.assert_array_equal(episode.images[0], seen["image"])
    runs = source.trajectories(policy, 8, 3)
    assert all(run.images.shape[0] == len(run) + 1 and run.images.max() == 220 for run in runs)


@pytest.mark.slow
def test_every_stage_runs_on_images(pool: EnvironmentPool, tmp_path: Path) -> None:
    training(pool, tmp_path).run()
    again = training(pool, tmp_path)
    again.run()  # all is there already
    assert {"iteration_1:improvement", "online"} <= again.steps.keys()
    assert again.load("online/policy").spec.image_shape == (IMAGE_SIZE, IMAGE_SIZE)


def test_online_learning_reaches_the_image_encoder(
    pool: EnvironmentPool, config: TrainConfig
) -> None:
    source = VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    policy = make_policy(SEEN_REACH_SPEC, config)
    before = policy.encoder.image.backbone.conv1.weight.detach().clone()
    value = Critic(SEEN_REACH_SPEC, policy.normaliser, with_action=False)
    seen_by_value = value.image.project.weight.detach().clone()
    runs = source.trajectories(policy, 8, 4)
    logs = OnlineLearner(policy, value, config, 0).update(runs, 0.0)
    assert logs["recomputed_difference"] < 1e-3
    assert not torch.equal(before, policy.encoder.image.backbone.conv1.weight)
    assert not torch.equal(seen_by_value, value.image.project.weight)


def test_the_wsrl_baseline_learns_from_images(pool: EnvironmentPool, config: TrainConfig) -> None:
    """The replay memory keeps the newest image of each observation, as bytes."""
    episodes = reach_demonstrations(range(4), seen=True)
    data = make_transitions(episodes, SEEN_REACH_SPEC, DISCOUNT, MAX_STEPS)
    learner = WsrlLearner(make_policy(SEEN_REACH_SPEC, config), config, 0)
    buffer = ReplayBuffer(learner.policy, len(data.times))
    buffer.add_transitions(data, learner.generator)
    batch = buffer.sample(16, learner.generator)
    assert batch.now.images.dtype == torch.uint8
    assert batch.now.images.shape == (16, 1, IMAGE_SIZE, IMAGE_SIZE, 3)
    kept = {image.numpy().tobytes() for image in batch.now.images}
    assert kept <= {image[-1:].numpy().tobytes() for image in data.images}
    source = VectorSource(pool, max_steps=MAX_STEPS, period_ns=PERIOD_NS, discount=DISCOUNT)
    buffer.add_runs(source.trajectories(learner.policy, 8, 2), DISCOUNT, learner.generator)
    logs = learner.update(buffer, 1, critic_only=False)
    assert np.isfinite(logs["critic_loss"]) and np.isfinite(logs["actor_loss"])
