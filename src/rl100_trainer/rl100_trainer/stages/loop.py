"""The optimisation loop that every stage's phases share: schedule, EMA, logs, checkpoints, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    CheckpointState,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    with_prefix,
)
from rl100_trainer.progress import Progress, ProgressCallback, StopRequested
from rl100_trainer.runlog import RunLog

LOG_EVERY = 50
LONGEST_WARM_UP = 500
WEIGHT_DECAY = 1e-6
BETAS = (0.95, 0.999)
LARGEST_GRADIENT = 5.0


class Ema:
    """Running average of parameters; a young average follows faster than ``decay``."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.averages = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step ``step`` (counted from 0)."""
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(
            list(self.averages.values()), list(self._parameters.values()), 1.0 - decay
        )

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """Overwrite the parameters with their averages."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.averages[name])


def ema_decay(steps: int) -> float:
    """Decay of the averaged weights that suits a phase: the average spans about a tenth of it.

    0.993 for 1,500 steps; 0.9999 (the paper's) from 100,000 on.
    """
    return min(0.9999, max(0.9, 1.0 - 10.0 / steps))


def learning_rate(step: int, total: int, highest: float) -> float:
    """Linear warm-up over at most a tenth of the phase, then cosine to 0."""
    warm_up = min(LONGEST_WARM_UP, total // 10)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return 0.5 * highest * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@dataclass
class RunContext:
    """What a run gives to each of its phases."""

    stage: str
    run: Path
    log: RunLog
    data: str
    checkpoint_every: int
    progress: ProgressCallback
    stop: StopRequested
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def checkpoint_folder(self) -> Path:
        """Where the newest checkpoint is."""
        return self.run / CHECKPOINT

    def save(self, phase: str, step: int, tensors: dict[str, Tensor]) -> None:
        """Save a checkpoint of the run."""
        state = CheckpointState(
            stage=self.stage, phase=phase, step=step, data=self.data, metrics=self.metrics
        )
        save_checkpoint(self.checkpoint_folder, Checkpoint(state, tensors))


LossFunction = Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]


class Phase:
    """One optimisation: which parameters, for how many steps, and its resumable state."""

    def __init__(
        self,
        name: str,
        policy: nn.Module,
        trained: dict[str, nn.Parameter],
        *,
        steps: int,
        rate: float,
        ema_decay: float,
        seed: int,
    ) -> None:
        self.name, self.policy, self.steps, self.rate = name, policy, steps, rate
        self._trained = list(trained.values())
        fused = all(p.device.type in ("cpu", "cuda") for p in self._trained)
        self.optimizer = torch.optim.AdamW(
            self._trained, lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fused
        )
        self.ema = Ema(trained, ema_decay)
        # Always on the CPU, so that a seed means the same batches everywhere.
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        return {
            **with_prefix("policy", self.policy.state_dict()),
            **with_prefix("ema", self.ema.averages),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
            "generator": self.generator.get_state(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this phase."""
        try:
            self.policy.load_state_dict(checkpoint.part("policy"))
            averages = checkpoint.part("ema")
            if averages:
                for name, value in self.ema.averages.items():
                    value.copy_(averages[name])
                load_optimizer(self.optimizer, checkpoint.part("optimizer"))
                self.generator.set_state(checkpoint.tensors["generator"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ContractError(
                f"the checkpoint doesn't fit this configuration ({str(error).splitlines()[0]})"
            ) from None
        self.step = checkpoint.state.step

    def _update(self, loss: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self._trained, LARGEST_GRADIENT))
        # Before the step: neither the weights nor a checkpoint of them may take in a NaN.
        if not math.isfinite(norm):
            raise ContractError(
                f"the loss of phase {self.name} or its gradient is not finite at step "
                f"{self.step + 1}: lower the learning rate, and check the data for outliers"
            )
        self.optimizer.step()
        self.ema.update(self.step)
        self.step += 1
        return norm

    def run(self, loss_function: LossFunction, context: RunContext) -> None:
        """Optimise to the end; afterwards the parameters are their averages.

        Raises:
            Interrupted: a stop was requested; the checkpoint is of the last finished step.
            ContractError: the loss or its gradient is not finite; the last checkpoint is kept.
        """
        started, first = time.monotonic(), self.step
        while self.step < self.steps:
            if context.stop():
                context.save(self.name, self.step, self.tensors())
                raise Interrupted(
                    f"interrupted in phase {self.name} after {self.step} of {self.steps} steps; "
                    f"the checkpoint is in {context.checkpoint_folder}, and the same command "
                    "goes on from it"
                )
            loss, parts = loss_function(self.generator)
            norm = self._update(loss)
            if self.step % LOG_EVERY == 0 or self.step == self.steps:
                self._report(loss, parts, norm, (started, first), context)
            if self.step % context.checkpoint_every == 0 and self.step < self.steps:
                context.save(self.name, self.step, self.tensors())
        self.ema.copy_to_parameters()

    def _report(
        self,
        loss: Tensor,
        parts: dict[str, Tensor],
        norm: float,
        since: tuple[float, int],
        context: RunContext,
    ) -> None:
        value = float(loss.detach())
        per_step = (time.monotonic() - since[0]) / max(1, self.step - since[1])
        scalars = {key: float(part.detach()) for key, part in parts.items()}
        rate = learning_rate(self.step - 1, self.steps, self.rate)
        context.log.scalars(
            self.name,
            self.step,
            {"loss": value, **scalars, "gradient_norm": norm, "learning_rate": rate},
        )
        eta = per_step * (self.steps - self.step)
        context.progress(Progress(context.stage, self.name, self.step, self.steps, value, eta))
