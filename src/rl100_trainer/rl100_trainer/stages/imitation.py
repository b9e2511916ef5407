"""Imitation stage: demonstrations → diffusion policy → one-step student → bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_trainer.checkpoint import Checkpoint
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays, Windows, make_windows, split_episodes
from rl100_trainer.distill import consistency_loss, student_error
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import (
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
)
from rl100_trainer.runlog import RunLog, rewind_metrics
from rl100_trainer.stages.loop import Phase, RunContext, ema_decay
from rl100_trainer.stages.losses import NOISE_LEVELS, imitation_loss
from rl100_trainer.stages.runs import (
    TrainedPolicy,
    check_horizon,
    choose_device,
    fingerprint,
    load_result,
    make_policy,
    open_run,
    save_policy,
)

STAGE = "il"
DENOISER, STUDENT, DONE = "denoiser", "student", "done"
PHASES = (DENOISER, STUDENT, DONE)
ENCODE_BATCH = 512
HELD_OUT = 0.05  # of the episodes, to measure the loss on


def named_parameters(**modules: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of several modules, named ``<module>.<parameter>``."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
    }


@torch.no_grad()
def encode_all(policy: DiffusionPolicy, windows: Windows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the code of every window, each (M, c)."""
    means, spreads = [], []
    for start in range(0, len(windows), ENCODE_BATCH):
        part = windows.subset(slice(start, start + ENCODE_BATCH))
        code = policy.encode(*part.observed)
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
            ema_decay=ema_decay(steps),
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
        else:  # whoever resumes a run begins with the weights that this one was given
            context.save(DENOISER, 0, phase.tensors())

        def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            index = torch.randint(len(self.windows), (config.batch_size,), generator=generator)
            batch = self.windows.subset(index.to(self.windows.states.device))
            return imitation_loss(policy, batch, config, generator, self.config.augmentation)

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
        policy, config = self.policy, self.config.imitation
        if checkpoint is None:
            policy.student.load_state_dict(policy.denoiser.state_dict())
        trained = named_parameters(student=policy.student)
        phase = self._phase(STUDENT, trained, self.config.distill.steps, config.learning_rate)
        if checkpoint is not None:
            phase.restore(checkpoint)
        means, spreads = encode_all(policy, self.windows)

        def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            index = torch.randint(len(means), (config.batch_size,), generator=generator)
            index = index.to(means.device)
            # The bottleneck's own noise shows the student the surroundings of the recorded codes.
            noise = torch.randn((len(index), means.shape[1]), generator=generator)
            condition = means[index] + spreads[index] * noise.to(means.device)
            return consistency_loss(policy, condition, NOISE_LEVELS, generator), {}

        phase.run(loss, context)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        some = torch.randperm(len(means), generator=generator)[:1024].to(means.device)
        context.metrics["student_error"] = student_error(policy, means[some], generator)
        context.log.scalars(STUDENT, self.config.distill.steps, context.metrics)

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


def train_imitation(
    config: TrainConfig,
    task: Task | LearningTask,
    episodes: Sequence[EpisodeArrays],
    run: Path,
    *,
    parent: str = "",
    weights: Sequence[Tensor] | None = None,
    start: Mapping[str, Tensor] | None = None,
    image_weights: Path | None = None,
    progress: ProgressCallback = ignore_progress,
    stop: StopRequested = never_stop,
) -> TrainedPolicy:
    """Train a policy and its student, and export the bundle to ``<run>/bundle``.

    The run's directory also gets config.yaml, task.yaml, metrics.jsonl, tensorboard/ and
    checkpoint/. An interrupted run in this directory goes on. On a CPU the result depends on the
    seed, configuration and data only, also then.

    Args:
        episodes: all of them are imitated; filter before.
        parent: policy_version that the data came from, noted in the bundle.
        weights: (T,) of each episode, how much each step counts; None: all alike.
        start: weights to go on from: of a whole policy or of its normaliser; None: a fresh one.
        image_weights: a .safetensors file of a ResNet-18 that the image encoder starts from.

    Raises:
        ContractError: unusable data, configuration or directory, or an export that isn't faithful.
        Interrupted: ``stop`` returned True; a checkpoint was saved.
    """
    task = LearningTask.of(task)
    spec = task.spec
    device = choose_device(config.run.device)
    check_horizon(config, task)
    policy = make_policy(spec, config)
    windows = make_windows(episodes, spec, policy.horizon)
    if weights is not None:
        windows = replace(windows, weight=torch.cat(list(weights)).float())
    data = fingerprint(episodes)
    checkpoint = open_run(run, config, task, data)
    if (run / "bundle").exists():
        return load_result(run / "bundle")
    if start is None:
        policy.normaliser.fit(spec, windows.states, windows.clouds, windows.actions[:, 0])
    else:
        policy.load_state_dict(dict(start), strict=False)
    if image_weights is not None:
        if spec.image_shape is None:
            raise ContractError(f"{image_weights}: task '{task.name}' observes no image")
        policy.encoder.image.load_pretrained(image_weights)
    policy.to(device)
    generator = torch.Generator().manual_seed(config.run.seed)
    train, held = split_episodes(windows, HELD_OUT, generator)
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
    result = save_policy(
        policy.cpu(),
        config,
        task,
        run / "bundle",
        stage=STAGE,
        parent=parent,
        observations=windows.observed,
        metrics={**context.metrics, "episodes": float(len(episodes)), "steps": float(len(windows))},
    )
    progress(Progress(STAGE, "export", 1, 1))
    return result
