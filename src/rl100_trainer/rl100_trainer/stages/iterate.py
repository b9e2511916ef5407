"""The driver of RL-100: imitate; M times roll out, improve and imitate again; learn online.

Every step leaves its result in a folder of its own and a line in ``steps.json``, so that a run goes
on after any interruption with the step that was cut off. A policy takes its predecessor's place
only after the gate and a trial in the real task; else the predecessor stays, bit for bit.

    <run>/il/                    imitation of the demonstrations
    <run>/iteration_1/           rollouts.npz, critics, verdicts, candidate of the improvement
    <run>/iteration_1/imitate/   re-training by imitation, which must win against the improvement
    <run>/online/                checkpoint, curve
    <run>/bundle                 what is deployed
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from rl100_contracts.bundle import WEIGHTS
from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.baselines.residual import ResidualPolicy
from rl100_trainer.baselines.wsrl import finetune
from rl100_trainer.checkpoint import load_checkpoint, load_tensors, save_tensors
from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.store import load_episodes, save_episodes
from rl100_trainer.data.transitions import Transitions, make_transitions
from rl100_trainer.learning_task import LearningTask
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import (
    Progress,
    ProgressCallback,
    StopRequested,
    ignore_progress,
    never_stop,
)
from rl100_trainer.rollouts.diagnosis import diagnose_critics
from rl100_trainer.rollouts.source import OnPolicySource
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.runlog import RunLog, forget_metrics, rewind_metrics
from rl100_trainer.stages.adoption import trial_result
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.improvement import fit_critics, improve, load_critics, save_critics
from rl100_trainer.stages.loop import RunContext
from rl100_trainer.stages.online_stage import OnlineStage
from rl100_trainer.stages.reimitation import imitation_plan
from rl100_trainer.stages.runs import (
    VALUE,
    TrainedPolicy,
    choose_device,
    fingerprint,
    load_policy,
    load_result,
    open_run,
    save_policy,
)
from rl100_trainer.stages.start_states import choice_starts, rollout_starts, trial_starts
from rl100_trainer.stages.steps import Result, Steps

ROLLOUTS = "rollouts.npz"
CANDIDATES = "candidate", "candidate_2"  # folder of each improvement of an iteration
FEWEST_CHOICE_EPISODES = 5
CONFIRM = 3  # times as many start states confirm the end of the online stage as choose its best
SEEDS_OF_A_RUN = 1000
IMPROVEMENTS = len(CANDIDATES)  # at most: another one only after one that passed its trial
RETRAINING = IMPROVEMENTS  # number of a re-training's trial, after those of the improvements


class IterativeTraining:
    """All stages on one task; call :meth:`run`.

    Args:
        demonstrations: all of them, failures too: the gate is blind without.
        source: of rollouts.
        run: folder of the run; a run that was interrupted in it goes on.

    Raises:
        ContractError: the folder holds a run of another task, configuration or data.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: LearningTask,
        demonstrations: Sequence[EpisodeArrays],
        source: OnPolicySource,
        run: Path,
        *,
        progress: ProgressCallback = ignore_progress,
        stop: StopRequested = never_stop,
    ) -> None:
        self.config, self.task, self.source, self.run_folder = config, task, source, run
        self.demonstrations = list(demonstrations)
        self.progress, self.stop = progress, stop
        self.device = choose_device(config.run.device)
        self._data = fingerprint(self.demonstrations)
        open_run(run, config, task, self._data)
        self._steps = Steps(run, self._data)

    # --- steps

    def _on_step(self, phase: str, step: int, total: int, loss: float) -> None:
        if self.stop():
            raise Interrupted(
                f"interrupted in {phase}; the same command goes on with this step of the run in "
                f"{self.run_folder}"
            )
        self._shown(phase, step, total, loss)

    def _shown(self, phase: str, step: int, total: int, loss: float) -> None:
        self.progress(Progress("iterate", phase, step, total, loss))

    @property
    def iterations(self) -> int:
        """Offline iterations of the configured algorithm."""
        return self.config.offline.iterations if self.config.run.algorithm == "rl100" else 0

    def run(self) -> TrainedPolicy:
        """All stages of the configured algorithm; returns the final policy."""
        self._steps.do("il", self._imitate)
        policy = self.load("il/bundle")
        for number in range(1, self.iterations + 1):
            policy = self._iteration(number, policy)
        if self.iterations:
            self._save_once("offline", policy)
        if self.config.run.algorithm == "bc":
            return load_result(self.run_folder / "il" / "bundle")
        if self.config.run.algorithm == "wsrl":
            # A correction on top of the imitated policy: for comparison, not for deployment.
            self._steps.do("online", lambda folder: self._wsrl(folder, policy))
            return load_result(self.run_folder / "il" / "bundle")
        self._steps.do("online", lambda folder: self._online(folder, policy))
        final = self.load("online/policy")
        if not (self.run_folder / "bundle").exists():
            return self._export(final)
        return load_result(self.run_folder / "bundle")

    def load(self, folder: str) -> DiffusionPolicy:
        """A policy that the run has kept in ``folder``."""
        if self.config.run.algorithm == "wsrl" and folder == "online/policy":
            base = load_policy(self.run_folder / "il" / "bundle", self.config, self.task.spec)
            corrected = ResidualPolicy(base, self.config, self.config.run.seed)
            corrected.load_state_dict(load_tensors(self.run_folder / folder / WEIGHTS))
            return corrected.to(self.device)
        policy = load_policy(self.run_folder / folder, self.config, self.task.spec)
        return policy.to(self.device)

    def _save(self, folder: Path, policy: DiffusionPolicy) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{WEIGHTS}"
        save_tensors(fresh, dict(policy.state_dict()))
        os.replace(fresh, folder / WEIGHTS)

    def _save_once(self, name: str, policy: DiffusionPolicy) -> None:
        """The policy that the offline stage ends with, for whoever compares."""
        if not (self.run_folder / name / WEIGHTS).is_file():
            self._save(self.run_folder / name, policy)

    def _imitate(self, folder: Path) -> Result:
        chosen = [e for e in self.demonstrations if e.outcome in self.config.imitation.outcomes]
        result = train_imitation(
            self.config, self.task, chosen, folder, progress=self.progress, stop=self.stop
        )
        return {"metrics": result.metrics}

    @property
    def env_steps(self) -> int:
        """Control steps of all rollouts so far, trials too.

        Evaluations that choose the online stage's best policy, and the diagnosis of the critics,
        aren't among them.
        """
        return self._steps.env_steps

    @property
    def wall_s(self) -> float:
        """Seconds of all steps so far, of interrupted attempts too."""
        return self._steps.seconds

    @property
    def steps(self) -> dict[str, Result]:
        """What each step came to, as in ``steps.json``."""
        return self._steps.results

    # --- one offline iteration

    def _iteration(self, number: int, behaviour: DiffusionPolicy) -> DiffusionPolicy:
        """Improve the policy that has just been rolled out; what imitation makes of it must win.

        The critics know best what the newest rollouts did, so the improvement starts from the
        policy that made them and not from one that has been re-trained since. How far they can be
        trusted is for the trials to say: another improvement follows one that was adopted.
        """
        name = f"iteration_{number}"
        self._steps.do(f"{name}:rollouts", lambda folder: self._roll_out(folder, number, behaviour))
        data = cache(lambda: self.episodes(number))  # only if a step is still to be done
        self._steps.do(
            f"{name}:critics", lambda folder: self._fit_critics(folder, number, behaviour, data())
        )
        best = behaviour
        for which in range(IMPROVEMENTS if self.config.offline.check_episodes else 1):
            improved = self._improved(number, which, best, data)
            if improved is best:
                break
            best = improved
        if self.config.offline.imitate == "none" or not self.config.offline.check_episodes:
            return best
        self._steps.do(
            f"{name}:re-training", lambda folder: self._reimitate(folder, behaviour, data())
        )
        again = self.load(f"{name}/imitate/bundle")
        return self._adopted(f"{name}:re-training trial", number, RETRAINING, again, best)

    def _improved(
        self,
        number: int,
        which: int,
        behaviour: DiffusionPolicy,
        data: Callable[[], list[EpisodeArrays]],
    ) -> DiffusionPolicy:
        """The policy after another improvement, if that passes its trial, else ``behaviour``."""
        name, ending = f"iteration_{number}", f" {which + 1}" if which else ""
        self._steps.do(
            f"{name}:improvement{ending}",
            lambda folder: self._improve(folder, number, which, behaviour, data()),
        )
        candidate = self.load(f"{name}/{CANDIDATES[which]}")
        return self._adopted(
            f"{name}:improvement{ending} trial", number, which, candidate, behaviour
        )

    def _adopted(
        self,
        step: str,
        number: int,
        which: int,
        candidate: DiffusionPolicy,
        behaviour: DiffusionPolicy,
    ) -> DiffusionPolicy:
        """The candidate if it passes its trial, else the behaviour policy."""
        trial = self._steps.do(step, lambda _: self._trial(number, which, candidate, behaviour))
        return candidate if trial["adopted"] else behaviour

    def episodes(self, number: int) -> list[EpisodeArrays]:
        """D_m: the demonstrations and the rollouts of the iterations up to ``number``."""
        merged = list(self.demonstrations)
        for iteration in range(1, number + 1):
            merged += load_episodes(self.run_folder / f"iteration_{iteration}" / ROLLOUTS)
        return merged

    def _rollout_starts(self, number: int) -> range:
        return rollout_starts(self.config.run.seed, number, self.config.offline.rollouts)

    def _roll_out(self, folder: Path, number: int, policy: DiffusionPolicy) -> Result:
        seeds = self._rollout_starts(number)
        before = self.source.env_steps
        self._on_step("roll out", 0, len(seeds), float("nan"))
        episodes = self.source.collect(policy, seeds)
        save_episodes(folder / ROLLOUTS, episodes)
        self.progress(Progress("iterate", "roll out", len(seeds), len(seeds)))
        success = sum(e.outcome == "success" for e in episodes) / len(episodes)
        return {"success": success, "env_steps": self.source.env_steps - before}

    def transitions(self, episodes: Sequence[EpisodeArrays]) -> Transitions:
        """The episodes' chunk transitions, on the run's device."""
        discount = self.config.critic.discount
        data = make_transitions(episodes, self.task.spec, discount, self.task.max_steps)
        return data.to(self.device)

    def _seed(self, number: int) -> int:
        return self.config.run.seed * SEEDS_OF_A_RUN + number

    def _fit_critics(
        self, folder: Path, number: int, policy: DiffusionPolicy, episodes: list[EpisodeArrays]
    ) -> Result:
        seed = self._seed(number)
        critics, logs = fit_critics(
            policy, self.config, self.task, episodes, seed=seed, on_step=self._on_step
        )
        save_critics(folder, critics)
        result: Result = {"critics": logs}
        if isinstance(self.source, VectorSource):  # only a simulator can go back to a state
            result["within_state"] = diagnose_critics(
                self.source,
                policy,
                critics,
                load_episodes(folder / ROLLOUTS),
                self._rollout_starts(number),
                self.task.max_steps,
                seed=seed,
            ).as_dict()
        return result

    def _improve(
        self,
        folder: Path,
        number: int,
        which: int,
        policy: DiffusionPolicy,
        episodes: list[EpisodeArrays],
    ) -> Result:
        candidate, seed = copy.deepcopy(policy), self._seed(number) + which * SEEDS_OF_A_RUN // 2
        critics = load_critics(folder, candidate, self.config, seed=seed)
        own = folder / CANDIDATES[which]
        own.mkdir(exist_ok=True)
        done = improve(
            candidate,
            critics,
            self.config,
            self.task,
            episodes,
            own,
            seed=seed,
            on_step=self._on_step,
        )
        self._save(own, candidate)
        return {"judge": done.logs, "verdicts": done.verdicts}

    def _trial(
        self, number: int, which: int, candidate: DiffusionPolicy, behaviour: DiffusionPolicy
    ) -> Result:
        return trial_result(
            self.source,
            candidate,
            behaviour,
            trial_starts(self.config.run.seed, number, which, self.config.offline.check_episodes),
            lambda done, total: self._on_step("trial", done, total, float("nan")),
            # The gate has judged an improvement; nothing has judged a re-training.
            judged=which != RETRAINING,
        )

    def _reimitate(
        self, folder: Path, policy: DiffusionPolicy, episodes: list[EpisodeArrays]
    ) -> Result:
        critics = load_critics(folder, policy, self.config)
        kind = self.config.offline.imitate
        assert kind != "none"  # then this step isn't done
        plan = imitation_plan(kind, episodes, critics, self.transitions)
        result = train_imitation(
            self.config,
            self.task,
            plan.episodes,
            folder / "imitate",
            weights=plan.weights,
            start=plan.start,
            progress=self.progress,
            stop=self.stop,
        )
        return {"metrics": result.metrics}

    # --- online, export

    def _online(self, folder: Path, policy: DiffusionPolicy) -> Result:
        value = Critic(self.task.spec, policy.normaliser, with_action=False).to(self.device)
        last = self.run_folder / f"iteration_{self.iterations}" / VALUE
        if last.is_file():
            value.load_state_dict(load_tensors(last))
        seeds = self._choice_seeds()
        stage = OnlineStage(
            policy,
            value,
            self.source,
            self.config,
            seeds,
            range(seeds.stop, seeds.stop + CONFIRM * len(seeds)),
            fresh_value=not last.is_file(),
        )
        with RunLog(folder) as log:
            context = RunContext(
                stage="online",
                run=folder,
                log=log,
                data=self._data,
                checkpoint_every=1,
                progress=self.progress,
                stop=self.stop,
            )
            checkpoint = load_checkpoint(context.checkpoint_folder)
            if checkpoint is not None:
                stage.restore(checkpoint)
                rewind_metrics(folder, "online", stage.env_steps, ("online",))
            stage.run(context)
        self._save(folder / "policy", policy)
        return {
            "env_steps": stage.env_steps,
            "curve": [[e.env_steps, e.success] for e in stage.curve],
        }

    def _wsrl(self, folder: Path, policy: DiffusionPolicy) -> Result:
        if not isinstance(self.source, VectorSource):
            raise ContractError("run.algorithm=wsrl learns in process: leave out --ros")
        total = self.config.online.env_steps
        forget_metrics(folder)  # an interrupted attempt begins again
        with RunLog(folder) as log:

            def on_round(env_steps: int, logs: dict[str, float]) -> None:
                log.scalars("online", env_steps, logs)
                report = self._on_step if env_steps < total else self._shown
                report("online", min(env_steps, total), total, logs.get("critic_loss", math.nan))

            corrected, curve = finetune(
                self.source.pool,
                policy,
                self.transitions(self.demonstrations),
                self.config,
                total,
                on_round,
                max_steps=self.task.max_steps,
                seeds=self._choice_seeds(),
            )
        self._save(folder / "policy", corrected)
        return {"env_steps": curve[-1][0], "curve": [list(point) for point in curve]}

    def _choice_seeds(self) -> range:
        count = max(FEWEST_CHOICE_EPISODES, self.config.offline.check_episodes)
        return choice_starts(self.config.run.seed, count)

    def _export(self, policy: DiffusionPolicy) -> TrainedPolicy:
        data = self.transitions(self.demonstrations)
        metrics = {"online_env_steps": float(self.steps["online"]["env_steps"])}
        return save_policy(
            policy.cpu(),
            self.config,
            self.task,
            self.run_folder / "bundle",
            stage="online",
            parent=load_result(self.run_folder / "il" / "bundle").policy_version,
            observations=data.to(torch.device("cpu")).observed(slice(None)),
            metrics=metrics,
        )
