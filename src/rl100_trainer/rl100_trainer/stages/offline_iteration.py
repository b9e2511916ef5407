"""One iteration of the offline stage: roll out, learn critics, improve, imitate again.

    <run>/iteration_1/              rollouts.npz, critics
    <run>/iteration_1/candidate/    what an improvement came to, its verdicts, its trial's episodes
    <run>/iteration_1/imitate/      re-training by imitation, which must win against the improvement

A policy takes its predecessor's place only after the gate and a trial in the real task; else the
predecessor stays, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rl100_trainer.config import TrainConfig
from rl100_trainer.data.dataset import EpisodeArrays
from rl100_trainer.data.store import load_episodes, save_episodes
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.rl.critic_training import OfflineCritics
from rl100_trainer.rollouts.diagnosis import diagnose_critics
from rl100_trainer.rollouts.vector import VectorSource
from rl100_trainer.stages.adoption import Trial, trial_result
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.stages.improvement import fit_critics, improve, load_critics, save_critics
from rl100_trainer.stages.reimitation import STEPS, imitation_plan, with_steps
from rl100_trainer.stages.start_states import rollout_starts, trial_starts
from rl100_trainer.stages.steps import Result
from rl100_trainer.stages.training_run import CANDIDATES, RETRAINED, ROLLOUTS, TrainingRun

SEEDS_OF_A_RUN = 1000
IMPROVEMENTS = len(CANDIDATES)  # at most: another one only after one that passed its trial
RETRAINING_TRIAL = "re-training trial"
RETRAINING = IMPROVEMENTS  # number of a re-training's trial, after those of the improvements


class OfflineIteration:
    """Iteration ``number`` (from 1) of a run, with the policy that it starts from."""

    def __init__(self, run: TrainingRun, number: int, behaviour: DiffusionPolicy) -> None:
        self._run, self._number, self.behaviour = run, number, behaviour
        self.name = f"iteration_{number}"
        self.seed = run.config.run.seed * SEEDS_OF_A_RUN + number
        self._starts = rollout_starts(run.config.run.seed, number, run.config.offline.rollouts)

    @cached_property
    def data(self) -> list[EpisodeArrays]:
        """All episodes so far; there are as many as needed after :meth:`prepare`."""
        return self._run.episodes(self._number)

    def run(self) -> DiffusionPolicy:
        """Improve the policy that has just been rolled out; what imitation makes of it must win.

        The critics know best what the newest rollouts did, so the improvement starts from the
        policy that made them and not from one that has been re-trained since. How far they can be
        trusted is for the trials to say: another improvement follows one that was adopted.
        """
        self.prepare()
        offline, best = self._run.config.offline, self.behaviour
        for which in range(IMPROVEMENTS if offline.check_episodes else 1):
            improved = self._improved(which, best)
            if improved is best:
                break
            best = improved
        if offline.imitate == "none" or not offline.check_episodes:
            return best
        self._run.journal.do(
            f"{self.name}:re-training", lambda folder: self._reimitate(folder, best)
        )
        again = self._run.load(f"{self.name}/{RETRAINED}/bundle")
        return self._adopted(RETRAINING_TRIAL, RETRAINING, again, best)

    def prepare(self) -> None:
        """The rollouts, and critics of all data so far, unless the run has them already."""
        self._run.journal.do(f"{self.name}:rollouts", self._roll_out)
        self._run.journal.do(f"{self.name}:critics", self._fit_critics)

    def _improved(self, which: int, behaviour: DiffusionPolicy) -> DiffusionPolicy:
        """The policy after another improvement, if that passes its trial, else ``behaviour``."""
        step = f"improvement {which + 1}" if which else "improvement"
        self._run.journal.do(
            f"{self.name}:{step}", lambda folder: self._improve(folder, which, behaviour)
        )
        candidate = self._run.load(f"{self.name}/{CANDIDATES[which]}")
        return self._adopted(f"{step} trial", which, candidate, behaviour)

    def _adopted(
        self, step: str, which: int, candidate: DiffusionPolicy, behaviour: DiffusionPolicy
    ) -> DiffusionPolicy:
        """The candidate if it passes its trial, else the behaviour policy."""
        config = self._run.config
        starts = trial_starts(config.run.seed, self._number, which, config.offline.check_episodes)

        def trial(folder: Path) -> Result:
            # The gate has judged an improvement; nothing has judged a re-training.
            done = self.trial(candidate, behaviour, starts, judged=which != RETRAINING)
            if done.episodes:
                save_episodes(folder / (*CANDIDATES, RETRAINED)[which] / ROLLOUTS, done.episodes)
            return done.as_dict()

        trial_log = self._run.journal.do(f"{self.name}:{step}", trial)
        return candidate if trial_log["adopted"] else behaviour

    # --- steps; each leaves its result in the iteration's folder

    def _roll_out(self, folder: Path) -> Result:
        run = self._run
        before, total = run.source.env_steps, len(self._starts)

        def on_episodes(ended: int) -> None:
            run.on_step("roll out", ended, total)

        on_episodes(0)
        episodes = run.source.collect(self.behaviour, self._starts, on_episodes)
        save_episodes(folder / ROLLOUTS, episodes)
        success = sum(e.outcome == "success" for e in episodes) / len(episodes)
        return {"success": success, "env_steps": run.source.env_steps - before}

    def fit_critics(self, folder: Path, config: TrainConfig) -> tuple[OfflineCritics, Result]:
        """Q and V of this iteration's data, kept in ``folder``, and what was logged of them."""
        run = self._run
        critics, logs = fit_critics(
            self.behaviour, config, run.task, self.data, seed=self.seed, on_step=run.on_step
        )
        save_critics(folder, critics)
        return critics, {"critics": logs}

    def _fit_critics(self, folder: Path) -> Result:
        run = self._run
        critics, result = self.fit_critics(folder, run.config)
        if isinstance(run.source, VectorSource):  # only a simulator can go back to a state
            result["within_state"] = diagnose_critics(
                run.source,
                self.behaviour,
                critics,
                load_episodes(folder / ROLLOUTS),
                self._starts,
                run.task.max_steps,
                seed=self.seed,
                on_state=lambda done, total: run.on_step("try critics", done, total),
            ).as_dict()
        return result

    def _improve(self, folder: Path, which: int, policy: DiffusionPolicy) -> Result:
        own = folder / CANDIDATES[which]
        own.mkdir(exist_ok=True)
        seed = self.seed + which * SEEDS_OF_A_RUN // 2
        return self.improve(own, policy, folder, self._run.config, seed)

    def improve(
        self, own: Path, policy: DiffusionPolicy, critics: Path, config: TrainConfig, seed: int
    ) -> Result:
        """The gated phases on this iteration's data.

        Args:
            own: folder of the verdicts and of the policy that they end with.
            policy: what they begin with; it stays as it is.
            critics: folder of Q and V.
        """
        run, candidate = self._run, copy.deepcopy(policy)
        done = improve(
            candidate,
            load_critics(critics, candidate, config, seed=seed),
            config,
            run.task,
            self.data,
            own,
            seed=seed,
            on_step=run.on_step,
        )
        run.save(own, candidate)
        return {"judge": done.logs, "verdicts": done.verdicts}

    def trial(
        self,
        candidate: DiffusionPolicy,
        behaviour: DiffusionPolicy,
        starts: Sequence[int],
        *,
        judged: bool,
    ) -> Trial:
        """A trial of the candidate; see ``adoption.trial_result``."""
        run = self._run
        return trial_result(
            run.source,
            candidate,
            behaviour,
            starts,
            lambda done, total: run.on_step("trial", done, total),
            judged=judged,
        )

    def _reimitate(self, folder: Path, policy: DiffusionPolicy) -> Result:
        run = self._run
        critics = load_critics(folder, policy, run.config)
        kind = run.config.offline.imitate
        assert kind != "none"  # then this step isn't done
        plan = imitation_plan(kind, self.data, critics, run.transitions, policy)
        result = train_imitation(
            with_steps(run.config, STEPS),
            run.task,
            plan.episodes,
            folder / RETRAINED,
            weights=plan.weights,
            start=plan.start,
            progress=lambda p: run.progress(replace(p, phase=f"re-train {p.phase}")),
            stop=run.stop,
        )
        return {"metrics": result.metrics}
