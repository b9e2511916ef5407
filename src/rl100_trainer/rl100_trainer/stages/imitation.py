"""Imitation stage: demonstrations → diffusion policy → one-step student → bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rl100_contracts.bundle import load_manifest
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import write_text_atomic
from rl100_contracts.task import Task
from rl100_trainer.checkpoint import Checkpoint, load_checkpoint
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays, Windows, make_windows, split_episodes
from rl100_trainer.distill import consistency_loss, student_error
from rl100_trainer.export import export_bundle
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import (
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
)
from rl100_trainer.runlog import RunLog, rewind_metrics
from rl100_trainer.spec import PolicySpec
from rl100_trainer.stages.loop import Phase, RunContext
from rl100_trainer.stages.losses import imitation_loss

STAGE = "il"
DENOISER, STUDENT, DONE = "denoiser", "student", "done"
PHASES = (DENOISER, STUDENT, DONE)
ENCODE_BATCH = 512


@dataclass(frozen=True)
class ImitationResult:
    """What a run produced."""

    bundle: Path
    policy_version: str
    metrics: dict[str, float]


def choose_device(wanted: str) -> torch.device:
    """The device of the configuration key ``run.device``; raises ContractError."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ContractError("run.device is cuda, but PyTorch sees no GPU: use run.device=cpu")
    gpu = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def make_policy(spec: PolicySpec, config: TrainConfig) -> DiffusionPolicy:
    """A policy whose initial weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return DiffusionPolicy(spec, config)


def named_parameters(**modules: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of several modules, named ``<module>.<parameter>``."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
    }


def fingerprint(episodes: Sequence[EpisodeArrays]) -> str:
    """Hash of the training data, so that a run isn't resumed on other data."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(episode.episode_id.encode())
        for array in (episode.states, episode.clouds, episode.actions):
            digest.update(array.tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode_all(policy: DiffusionPolicy, windows: Windows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the code of every window, each (M, c)."""
    means, spreads = [], []
    for start in range(0, len(windows), ENCODE_BATCH):
        part = slice(start, start + ENCODE_BATCH)
        code = policy.encode(windows.states[part], windows.clouds[part])
        means.append(code.mean.flatten(1))
        spreads.append((0.5 * code.log_variance).exp().flatten(1))
    return torch.cat(means), torch.cat(spreads)


class ImitationTrainer:
    """Runs the stage's phases on one policy; see :func:`train_imitation`."""

    def __init__(
        self, policy: DiffusionPolicy, config: TrainConfig, windows: Windows, held: Windows | None
    ) -> None:
        self.policy, self.config, self.windows, self.held = policy, config, windows, held

    def _phase(self, name: str, trained: dict[str, nn.Parameter], steps: int, rate: float) -> Phase:
        return Phase(
            name,
            self.policy,
            trained,
            steps=steps,
            rate=rate,
            ema_decay=self.config.imitation.ema_decay,
            seed=self.config.run.seed * len(PHASES) + PHASES.index(name),
        )

    def train_denoiser(self, context: RunContext, checkpoint: Checkpoint | None) -> None:
        """Encoder, decoders and denoiser by imitation."""
        config, policy = self.config.imitation, self.policy
        trained = named_parameters(
            encoder=policy.encoder, decoder=policy.decoder, denoiser=policy.denoiser
        )
        phase = self._phase(DENOISER, trained, config.steps, config.learning_rate)
        if checkpoint is not None:
            phase.restore(checkpoint)

        def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            index = torch.randint(len(self.windows), (config.batch_size,), generator=generator)
            batch = self.windows.subset(index.to(self.windows.states.device))
            return imitation_loss(policy, batch, config, generator)

        phase.run(loss, context)
        if self.held is not None:
            context.metrics["held_out_action_error"] = self._held_out_error()
            context.log.scalars(DENOISER, config.steps, context.metrics)

    @torch.no_grad()
    def _held_out_error(self) -> float:
        """RMS difference of the K-step policy's and the recorded actions, normalised."""
        assert self.held is not None
        policy, held = self.policy, self.held
        condition, _ = encode_all(policy, held)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        shape = (len(held), policy.horizon, policy.spec.action_dim)
        noise = torch.randn(shape, generator=generator).to(condition.device)
        actions = policy.rollout(condition, noise).samples[-1]
        errors = (actions - policy.normaliser.action(held.actions)).square().mean(dim=2)
        return float(errors[held.valid].mean().sqrt())

    def train_student(self, context: RunContext, checkpoint: Checkpoint | None) -> None:
        """The one-step student; encoder and denoiser stay as they are."""
        policy, config = self.policy, self.config.distill
        if checkpoint is None:
            policy.student.load_state_dict(policy.denoiser.state_dict())
        trained = named_parameters(student=policy.student)
        phase = self._phase(STUDENT, trained, config.steps, config.learning_rate)
        if checkpoint is not None:
            phase.restore(checkpoint)
        means, spreads = encode_all(policy, self.windows)

        def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            index = torch.randint(len(means), (config.batch_size,), generator=generator)
            index = index.to(means.device)
            # The bottleneck's own noise shows the student the surroundings of the recorded codes.
            noise = torch.randn((len(index), means.shape[1]), generator=generator)
            condition = means[index] + spreads[index] * noise.to(means.device)
            levels = self.config.imitation.noise_levels
            return consistency_loss(policy, condition, levels, generator), {}

        phase.run(loss, context)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        some = torch.randperm(len(means), generator=generator)[:1024].to(means.device)
        context.metrics["student_error"] = student_error(policy, means[some], generator)
        context.log.scalars(STUDENT, config.steps, context.metrics)

    def run(self, context: RunContext, checkpoint: Checkpoint | None) -> None:
        """All phases, from the checkpoint on."""
        at = DENOISER if checkpoint is None else checkpoint.state.phase
        if checkpoint is not None:
            context.metrics.update(checkpoint.state.metrics)
        if at == DENOISER:
            self.train_denoiser(context, checkpoint)
            context.save(STUDENT, 0, self._whole())
            checkpoint = None
        if at in (DENOISER, STUDENT):
            fresh = checkpoint is None or checkpoint.state.step == 0
            if checkpoint is not None and fresh:
                self._load(checkpoint)
            self.train_student(context, None if fresh else checkpoint)
            context.save(DONE, 0, self._whole())
        elif checkpoint is not None:
            self._load(checkpoint)

    def _whole(self) -> dict[str, Tensor]:
        return {f"policy.{name}": value for name, value in self.policy.state_dict().items()}

    def _load(self, checkpoint: Checkpoint) -> None:
        try:
            self.policy.load_state_dict(checkpoint.part("policy"))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ContractError(
                f"the checkpoint doesn't fit this configuration ({reason})"
            ) from None


def _open_run(run: Path, config: TrainConfig, task: Task, data: str) -> Checkpoint | None:
    """Prepare the run's directory; returns the checkpoint to go on from."""
    saved_config, saved_task = run / "config.yaml", run / "task.yaml"
    if saved_config.exists():
        if saved_config.read_text(encoding="utf-8") != config.to_yaml():
            raise ContractError(
                f"{saved_config}: another configuration than the one given now: give the same one "
                "to go on with this run, or another folder for a new one"
            )
        if saved_task.exists() and saved_task.read_text(encoding="utf-8") != task.to_yaml():
            raise ContractError(
                f"{saved_task}: another task than the one given now: give another folder"
            )
        checkpoint = load_checkpoint(run / "checkpoint")
        if checkpoint is not None and checkpoint.state.data != data:
            raise ContractError(
                f"{run}: this run was started with other episodes: give another folder"
            )
        return checkpoint
    run.mkdir(parents=True, exist_ok=True)
    write_text_atomic(saved_task, task.to_yaml())
    write_text_atomic(saved_config, config.to_yaml())
    return None


def train_imitation(
    config: TrainConfig,
    task: Task,
    episodes: Sequence[EpisodeArrays],
    run: Path,
    *,
    parent: str = "",
    progress: ProgressCallback = ignore_progress,
    stop: StopRequested = never_stop,
) -> ImitationResult:
    """Train a policy and its student, and export the bundle to ``<run>/bundle``.

    The run's directory also gets config.yaml, task.yaml, metrics.jsonl, tensorboard/ and
    checkpoint/. An interrupted run in this directory goes on. On a CPU the result depends on the
    seed, configuration and data only, also then.

    Args:
        episodes: all of them are imitated; filter before.
        parent: policy_version that the data came from, noted in the bundle.

    Raises:
        ContractError: unusable data, configuration or directory, or an export that isn't faithful.
        Interrupted: ``stop`` returned True; a checkpoint was saved.
    """
    spec = PolicySpec.of_task(task)
    device = choose_device(config.run.device)
    policy = make_policy(spec, config)
    if policy.horizon < spec.n_action_steps:
        raise ContractError(
            f"model.horizon {policy.horizon} is below the {spec.n_action_steps} actions that "
            f"task '{task.name}' executes per decision"
        )
    windows = make_windows(episodes, spec, policy.horizon)
    data = fingerprint(episodes)
    checkpoint = _open_run(run, config, task, data)
    if (run / "bundle").exists():
        manifest = load_manifest(run / "bundle")
        return ImitationResult(run / "bundle", manifest.policy_version, manifest.metrics)
    policy.normaliser.fit(spec, windows.states, windows.clouds, windows.actions[:, 0])
    policy.to(device)
    generator = torch.Generator().manual_seed(config.run.seed)
    train, held = split_episodes(windows, config.imitation.validation, generator)
    trainer = ImitationTrainer(
        policy, config, train.to(device), None if held is None else held.to(device)
    )
    if checkpoint is not None:
        rewind_metrics(run, checkpoint.state.phase, checkpoint.state.step, PHASES)
    with RunLog(run) as log:
        log.text("config", config.to_yaml())
        context = RunContext(
            stage=STAGE,
            run=run,
            log=log,
            data=data,
            checkpoint_every=config.run.checkpoint_every,
            progress=progress,
            stop=stop,
        )
        trainer.run(context, checkpoint)
    progress(Progress(STAGE, "export", 0, 1))
    manifest = export_bundle(
        policy.cpu(),
        config,
        task,
        run / "bundle",
        stage=STAGE,
        parent=parent,
        observations=(windows.states, windows.clouds),
        metrics={**context.metrics, "episodes": float(len(episodes)), "steps": float(len(windows))},
    )
    progress(Progress(STAGE, "export", 1, 1))
    return ImitationResult(run / "bundle", manifest.policy_version, manifest.metrics)
