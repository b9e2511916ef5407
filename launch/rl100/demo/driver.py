"""`rl100 demo`: record demonstrations, train, deploy and evaluate on the simulated push task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from rl100.demo.training import train_through_ros
from rl100.evaluate import Evaluation, evaluate_ros
from rl100.parity import check_parity
from rl100.session import EpisodeResult, Session
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import write_json_atomic
from rl100_contracts.task import Task, load_task
from rl100_msgs.msg import TrainProgress
from rl100_trainer.console import PlainLines
from rl100_trainer.progress import Progress as Shown

# Start states of demonstrations and of evaluation never overlap, whatever the seed.
EVALUATION_SEEDS = 1_000_000
SEED_STRIDE = 10_000


@dataclass(frozen=True)
class DemoPlan:
    """How much the demo does.

    Attributes:
        demonstrations: episodes recorded by the noisy scripted teleoperator.
        episodes: evaluation episodes of each policy.
        recorded: how many of them are recorded (for the report and the parity check).
        overrides: training configuration.
    """

    demonstrations: int
    episodes: int
    recorded: int
    overrides: tuple[str, ...] = ()


FULL = DemoPlan(demonstrations=120, episodes=100, recorded=5)
QUICK = DemoPlan(demonstrations=80, episodes=40, recorded=3, overrides=("preset=quick",))


@dataclass
class DemoResult:
    """What the demo measured; seconds of each phase in ``seconds``."""

    task: Task
    seed: int
    folder: Path
    demonstrations: Evaluation | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    bundle: Path = Path()
    export_parity: float = float("nan")
    parity_compared: int = 0
    parity_different: int = 0
    steps_per_s: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self) -> None:
        """Write summary.json."""
        evaluations = [e for e in (self.demonstrations, *self.evaluations) if e is not None]
        write_json_atomic(
            self.folder / "summary.json",
            {
                "task": self.task.name,
                "task_hash": self.task.hash,
                "seed": self.seed,
                "bundle": str(self.bundle),
                "export_parity": self.export_parity,
                "bag_live_parity": {
                    "compared": self.parity_compared,
                    "different": self.parity_different,
                },
                "lockstep_steps_per_s_ros": self.steps_per_s,
                "seconds": self.seconds,
                "evaluations": [evaluation.summary() for evaluation in evaluations],
            },
        )


class _Bars:
    """Progress bars of the demo: the time that remains, at the end the time it took."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            # Together they fit a terminal of 80 columns.
            TextColumn("{task.description}"),
            BarColumn(bar_width=15),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._lines = None if console.is_terminal else PlainLines(console.file)

    def __enter__(self) -> _Bars:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def episodes(self, title: str, total: int) -> Callable[[EpisodeResult], None]:
        """A bar that counts episodes and their successes."""
        bar = self._progress.add_task(title, total=total, note="")
        done: list[bool] = []

        def show(result: EpisodeResult) -> None:
            done.append(result.success)
            note = f"{sum(done)} of {len(done)} solved"
            if self._lines is not None:
                self._lines.show(Shown("demo", title, len(done), total), note)
            self._progress.update(bar, completed=len(done), note=note)

        return show

    def training(self) -> Callable[[TrainProgress], None]:
        """One bar for each phase of a training run."""
        bars: dict[str, int] = {}

        def show(progress: TrainProgress) -> None:
            phase = str(progress.phase)
            if self._lines is not None:
                step, total = int(progress.step), int(progress.total_steps)
                loss, eta_s = float(progress.loss), float(progress.eta_s)
                self._lines.show(Shown("demo", f"training: {phase}", step, total, loss, eta_s))
            if phase not in bars:
                bars[phase] = self._progress.add_task(
                    f"training: {phase}", total=progress.total_steps, note=""
                )
            self._progress.update(
                bars[phase],  # type: ignore[arg-type]
                completed=progress.step,
                total=progress.total_steps,
                note="" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}",
            )

        return show


def run_demo(folder: Path, plan: DemoPlan, seed: int, console: Console) -> DemoResult:
    """Run the whole loop; everything it makes is below ``folder``.

    Raises:
        ContractError: a node has died or refuses; the sentence says which and why.
    """
    task = load_task("push")
    result = DemoResult(task, seed, folder)
    data = folder / "episodes"
    arguments = {"task": "push", "data": str(data), "seed": str(seed)}
    with ExitStack() as stack:
        bars = stack.enter_context(_Bars(console))
        started = time.monotonic()
        system = stack.enter_context(
            RunningSystem(describe("demo", arguments), log_dir=folder / "logs")
        )
        session = stack.enter_context(Session(task, system.check))

        def lap(name: str) -> None:
            nonlocal started
            result.seconds[name] = time.monotonic() - started
            started = time.monotonic()

        _record(session, plan, seed, bars, result)
        lap("record")
        _train(session, plan, data, bars, result)
        lap("train")
        for sampler, title in (("k_step", "K-step policy"), ("one_step", "one-step policy")):
            first = EVALUATION_SEEDS + seed * SEED_STRIDE
            result.evaluations.append(
                evaluate_ros(
                    session,
                    sampler,
                    range(first, first + plan.episodes),
                    record_first=plan.recorded,
                    on_result=bars.episodes(f"evaluating: {title}", plan.episodes),
                )
            )
            lap(f"evaluate {sampler}")
    _check_parity(result)
    result.save()
    return result


def _record(session: Session, plan: DemoPlan, seed: int, bars: _Bars, result: DemoResult) -> None:
    session.set_mode("teleop")
    first = seed * SEED_STRIDE
    results = session.run_episodes(
        range(first, first + plan.demonstrations),
        record=True,
        on_result=bars.episodes("recording demonstrations", plan.demonstrations),
    )
    result.demonstrations = Evaluation("demonstrations", "", results)
    result.steps_per_s = sum(r.steps for r in results) / sum(r.wall_s for r in results)


def _train(session: Session, plan: DemoPlan, data: Path, bars: _Bars, result: DemoResult) -> None:
    answer = train_through_ros(
        session,
        data,
        result.folder / "train",
        [*plan.overrides, f"seed={result.seed}"],
        on_progress=bars.training(),
    )
    from rl100_contracts.bundle import load_manifest

    result.bundle = Path(answer.bundle)
    result.export_parity = load_manifest(result.bundle).export_parity


def _check_parity(result: DemoResult) -> None:
    """Every recorded rollout: the bag must give the tensors that the policy saw."""
    for evaluation in result.evaluations:
        for episode in (r for r in evaluation.results if r.path):
            parity = check_parity(Path(episode.path), result.task)
            result.parity_compared += parity.compared
            result.parity_different += len(parity.different)
    if result.parity_different:
        raise ContractError(
            f"{result.parity_different} of {result.parity_compared} observations from the bags "
            "differ from what the policy saw: please report this as a bug"
        )
