"""Tasks and bundles to measure with: the paper's networks with random weights.

What a network computes does not change its speed, so nothing is trained; but every bundle is a real
one, written by the trainer's export with its parity check.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.bundle import MANIFEST, WEIGHTS
from rl100_contracts.observation import Observation
from rl100_contracts.task import Task, load_task

if TYPE_CHECKING:
    from rl100_trainer.config import TrainConfig
    from rl100_trainer.networks.policy import DiffusionPolicy

POINTS = 512
FRAMES = 2  # n_o
DDIM_STEPS = 10
SAMPLES = 8  # observations of the parity check


@dataclass(frozen=True)
class Network:
    """A network, and the task that it is measured with.

    Attributes:
        name: of the bundle.
        rate_hz: control rate.
        preset: of the trainer's configuration.
        overrides: of its keys.
        points: of the cloud.
        actions: executed actions of a decision (n_c). With two, a chunk is still being executed
            while the next one is computed, so there is a decision in each control period. With
            eight, as the literature has it for the U-Net, a decision may take several periods.
    """

    name: str
    rate_hz: float
    preset: str
    overrides: tuple[str, ...] = ()
    points: int = POINTS
    actions: int = 2


SKIPNET = Network("skipnet", 100.0, "paper_single")
# Only the one-step policy of these bundles is run, and the graph of ten steps would take most of
# the time of the export: it has two. DDIM runs in PyTorch, with DDIM_STEPS.
UNET = ("model.horizon=16", "diffusion.steps=2")
UNET_ACTIONS = 8
UNET_SMALL = Network("unet_small", 30.0, "paper_small", UNET, actions=UNET_ACTIONS)
UNET_FULL = Network("unet_full", 30.0, "paper", UNET, actions=UNET_ACTIONS)


def task_of(network: Network) -> Task:
    """The built-in task push at another rate, with larger clouds."""
    push = load_task("push")
    values: dict[str, Any] = push.model_dump()
    values["robot"] = None  # the benchmark's arm is where it is told to be
    values["name"] = f"bench_{network.name}"
    values["control"].update(
        rate_hz=network.rate_hz, n_obs_steps=FRAMES, n_action_steps=network.actions
    )
    values["observation"]["cloud"]["num_points"] = network.points
    for stream in values["streams"].values():
        if stream["rate_hz"] is not None:
            stream["rate_hz"] = network.rate_hz
    # Steps at the same speed.
    scale = push.control.rate_hz / network.rate_hz
    for key in ("low", "high"):
        values["action"][key] = [scale * value for value in values["action"][key]]
    return Task.model_validate(values)


def random_observation(task: Task, rng: np.random.Generator, stamp_ns: int = 0) -> Observation:
    """An observation of a cloud in the camera's crop box and a robot near its middle."""
    frames = task.control.n_obs_steps
    state = rng.uniform(-0.2, 0.2, (frames, task.observation.state_dim)).astype(np.float32)
    return Observation(stamp_ns, state, random_clouds(task, rng, frames))


def consecutive_observations(task: Task, rng: np.random.Generator, count: int) -> list[Observation]:
    """Observations as they come at control rate: each has the newest frames of the one before.

    The first one follows the last.
    """
    frames = task.control.n_obs_steps
    drawn = [random_observation(task, rng) for _ in range(count)]
    made = []
    for last in range(count):
        newest = [drawn[(last - back) % count].tensors() for back in reversed(range(frames))]
        seen = {name: np.stack([frame[name][-1] for frame in newest]) for name in newest[0]}
        made.append(Observation(0, **seen))
    return made


def random_clouds(task: Task, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Points float32 (count, N, 3) in the crop box, m."""
    crop = task.cloud.crop
    points = rng.uniform(crop.low, crop.high, (count, task.cloud.num_points, 3))
    return points.astype(np.float32)


def config_of(network: Network, *overrides: str) -> TrainConfig:
    """The trainer's configuration of a network."""
    from rl100_trainer.config import load_config

    return load_config(network.preset, (*network.overrides, *overrides))


@cache
def _exporter() -> str:
    """Digest of everything that decides how a bundle comes out."""
    import onnxruntime
    import torch

    import rl100_trainer

    root = Path(str(rl100_trainer.__file__)).parent
    digest = hashlib.sha256(f"{torch.__version__} {onnxruntime.__version__}".encode())
    sources = [root / "export.py", root / "spec.py"]
    for part in ("networks", "diffusion"):
        sources += sorted((root / part).glob("*.py"))
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


class BundleStore:
    """Bundles that are made when they are first needed and kept for the next run.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def path(self, network: Network, seed: int = 0) -> Path:
        """Where the bundle is, or will be."""
        config, task = config_of(network), task_of(network)
        text = f"{_exporter()} {config.to_yaml()} {task.hash} {seed}"
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._folder / f"{network.name}-{seed}-{key}"

    def ready(self, network: Network) -> bool:
        """Whether the bundle is there already."""
        return (self.path(network) / MANIFEST).is_file()

    def bundle(self, network: Network, seed: int = 0) -> Path:
        """The bundle; made now when it is missing (the full U-Net takes a minute and 1.1 GB)."""
        final = self.path(network, seed)
        if not final.exists():
            self._export(network, seed, final)
        return final

    def _export(self, network: Network, seed: int, final: Path) -> None:
        import torch

        from rl100_trainer.data.dataset import stack_observations
        from rl100_trainer.export import export_bundle

        torch.set_num_threads(1)
        task, config = task_of(network), config_of(network)
        policy = _fresh(network, seed)
        rng = np.random.default_rng(seed)
        drawn = [random_observation(task, rng) for _ in range(SAMPLES)]
        seen = stack_observations(drawn).values()
        states, clouds, images = (torch.from_numpy(array) for array in seen)
        actions = torch.from_numpy(
            rng.uniform(task.action.low, task.action.high, (SAMPLES, task.action.dim))
        ).float()
        policy.normaliser.fit(policy.spec, states, clouds, actions)
        export_bundle(
            policy,
            config,
            task,
            final,
            stage="il",
            parent="",
            observations=(states, clouds, images),
            metrics={},
            parity_samples=SAMPLES,
        )


def _fresh(network: Network, seed: int, *overrides: str) -> DiffusionPolicy:
    import torch

    from rl100_trainer.networks.policy import DiffusionPolicy
    from rl100_trainer.spec import PolicySpec

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = DiffusionPolicy(
            PolicySpec.of_task(task_of(network)), config_of(network, *overrides)
        )
    return policy.eval()


def eager_policy(network: Network, bundle: Path) -> DiffusionPolicy:
    """The very network of a bundle in PyTorch, with a schedule of ``DDIM_STEPS`` steps."""
    from rl100_trainer.checkpoint import load_weights

    policy = _fresh(network, 0, f"diffusion.steps={DDIM_STEPS}")
    load_weights(policy, bundle / WEIGHTS)
    return policy
