"""Reads the data that a stage wants and runs it: what `rl100 train` and the trainer's child do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rl100_contracts.errors import ContractError, Interrupted
from rl100_contracts.task import Task, load_task
from rl100_trainer.config import TrainConfig, config_of_run, load_config
from rl100_trainer.console import StopFlag
from rl100_trainer.data.bags import read_episodes
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.disc import disc_told
from rl100_trainer.progress import Progress, ProgressCallback
from rl100_trainer.run_lock import locked
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.recorded import RecordedStage
from rl100_trainer.stages.runs import TrainedPolicy

Stage = Literal["il", "offline", "online"]
LABELLED = ("success", "failure")


@dataclass(frozen=True)
class StageRequest:
    """What a user asks for.

    Attributes:
        config: preset or file; empty: defaults, or the previous run's configuration.
        previous: run to go on from; the stages after imitation need one.
        cache: folder of decoded episodes, or None.
        image_weights: pretrained weights that the image encoder starts from, or None.
    """

    stage: Stage
    task: str
    data: list[Path]
    out: Path
    config: str = ""
    overrides: tuple[str, ...] = ()
    previous: Path | None = None
    cache: Path | None = None
    strict: bool = False
    other_versions: bool = False
    image_weights: Path | None = None

    def settings(self) -> TrainConfig:
        """The whole configuration; raises ContractError."""
        if self.config or self.previous is None:
            return load_config(self.config or None, self.overrides)
        return config_of_run(self.previous, self.overrides)


def run_stage(request: StageRequest, show: ProgressCallback) -> tuple[TrainedPolicy, list[str]]:
    """Run it; returns the policy and a sentence for each episode that was skipped.

    Raises:
        ContractError: unusable data, configuration or folders, or a gate that lets nothing pass.
        Interrupted: after a signal.
    """
    config, stage = request.settings(), request.stage
    if stage != "il" and request.previous is None:
        raise ContractError(f"stage {stage} goes on from a run: give its folder with --previous")
    task = load_task(request.task)
    if task.observation.image is None:
        torch.set_num_threads(1)  # small networks gain nothing, and the robot's nodes run here
    stop = StopFlag()
    with stop.caught():

        def on_episode(done: int, total: int) -> None:
            if stop():
                raise Interrupted("interrupted while reading the episodes; nothing was written")
            show(Progress(stage, "read", done, total))

        episodes, report = read_episodes(
            request.data,
            task,
            config.imitation.outcomes if stage == "il" else LABELLED,
            cache=request.cache,
            strict=request.strict,
            other_versions=request.other_versions,
            on_episode=on_episode,
        )
        for sentence in report.skipped:
            print(f"skipped: {sentence}", file=sys.stderr)
        then = "it goes on from the last checkpoint" if stage == "il" else "it begins again"
        with disc_told(f"{request.out}: the run", then), locked(request.out):
            result = _train(request, config, task, episodes, show, stop)
    return result, report.skipped


def _train(
    request: StageRequest,
    config: TrainConfig,
    task: Task,
    episodes: Sequence[EpisodeArrays],
    show: ProgressCallback,
    stop: StopFlag,
) -> TrainedPolicy:
    if request.stage == "il":
        return train_imitation(
            config,
            task,
            episodes,
            request.out,
            image_weights=request.image_weights,
            progress=show,
            stop=stop,
        )
    assert request.previous is not None
    recorded = RecordedStage(
        config, task, episodes, request.previous, request.out, progress=show, stop=stop
    )
    return recorded.offline() if request.stage == "offline" else recorded.online()
