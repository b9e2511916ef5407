"""Runs the online stage: rounds of rollouts and updates, evaluations, keep-best, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.checkpoint import Checkpoint, load_optimizer, optimizer_tensors, with_prefix
from rl100_trainer.config import TrainConfig
from rl100_trainer.distill import consistency_loss
from rl100_trainer.networks.critics import Critic
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.progress import Progress
from rl100_trainer.rollouts.source import OnPolicySource
from rl100_trainer.rollouts.trajectory import OBSERVED, stack
from rl100_trainer.stages.loop import RunContext
from rl100_trainer.stages.online import OnlineLearner

STAGE = "online"
WARM_UP_ROUNDS = 4  # of a fresh critic, before the policy follows it
EVALUATE_EVERY = 20  # rounds
# Two evaluations in a row, confirmed on start states that chose nothing: nothing is left to learn
# from. Without the confirmation a policy of 96 % was once lucky twice, and the stage ended.
GOOD_ENOUGH = 0.995
FEWEST_TO_END = 100  # start states: with fewer, 99.5 % cannot be told from 90
POLISH_LEVELS = 4


@dataclass(frozen=True)
class Evaluated:
    """Success rates (K-step, deterministic) after so many control steps."""

    env_steps: int
    success: float


class OnlineStage:
    """The stage on one policy, which is the best one found afterwards.

    Args:
        policy, value: learnt in place.
        source: of on-policy decisions.
        seeds: start states of the evaluations that choose the best policy.
        others: start states that chose nothing: they confirm that nothing is left to learn from,
            and say at the end whether the best policy of so many evaluations was only lucky.
        fresh_value: V was not warm-started.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        value: Critic,
        source: OnPolicySource,
        config: TrainConfig,
        seeds: Sequence[int],
        others: Sequence[int],
        *,
        fresh_value: bool,
    ) -> None:
        self.policy, self.value, self.source, self.config = policy, value, source, config
        self.seeds, self.others = seeds, others
        self.learner = OnlineLearner(policy, value, config, config.run.seed)
        self.best = self._weights()
        self.curve: list[Evaluated] = []
        self.round = 0
        self.finished = False
        self.warm_up = WARM_UP_ROUNDS if fresh_value else 0
        self._first_step = source.env_steps

    @property
    def env_steps(self) -> int:
        """Control steps collected by this stage."""
        return self.source.env_steps - self._first_step

    def run(self, context: RunContext) -> None:
        """All rounds; resumes from the context's checkpoint where there is one."""
        if not self.curve:
            self._evaluate(context)
        total, started, first = self.config.online.env_steps, time.monotonic(), self.env_steps
        while self.env_steps < total and not self.finished:
            if context.stop():
                context.save(STAGE, self.round, self.tensors())
                raise Interrupted(
                    f"interrupted in the online stage after {self.env_steps} of {total} steps; the "
                    f"checkpoint is in {context.checkpoint_folder}, and the same command goes on"
                )
            logs = self._one_round()
            rate = (self.env_steps - first) / (time.monotonic() - started)
            context.log.scalars(STAGE, self.env_steps, {**logs, "env_steps_per_s": rate})
            eta = max(0.0, (total - self.env_steps) / rate)
            loss = logs.get("value_loss", float("nan"))
            context.progress(Progress(STAGE, STAGE, min(self.env_steps, total), total, loss, eta))
            if self.round % EVALUATE_EVERY == 0:
                self._evaluate(context)
        if self.curve[-1].env_steps != self.env_steps:
            self._evaluate(context)
        self._keep_best()
        if self.config.online.distill_weight > 0.0:
            self._polish_student(context)

    def _good_enough(self) -> bool:
        if self.env_steps >= self.config.online.env_steps:
            return False  # the stage is over in any case, and the confirmation costs episodes
        if len(self.others) < FEWEST_TO_END:
            return False
        last = self.curve[-2:]
        if len(last) < 2 or any(e.success < GOOD_ENOUGH for e in last):
            return False
        return self.source.evaluate(self.policy, "k_step", self.others).rate >= GOOD_ENOUGH

    def _one_round(self) -> dict[str, float]:
        online = self.config.online
        runs = self.source.trajectories(self.policy, online.environments, online.decisions)
        ended = [run for run in runs if run.ended]
        logs = self.learner.update(
            runs,
            self.env_steps / online.env_steps,
            critic_only=self.round < self.warm_up,
        )
        self.round += 1
        if ended:
            logs["rollout_success"] = sum(run.rewards[-1] > 0.0 for run in ended) / len(ended)
        return logs

    def _evaluate(self, context: RunContext) -> None:
        """Evaluate, keep the policy if none was better, and save a checkpoint."""
        success = self.source.evaluate(self.policy, "k_step", self.seeds).rate
        known = max((e.success for e in self.curve), default=0.0)
        self.curve.append(Evaluated(self.env_steps, success))
        if success >= known:
            self.best = self._weights()
        context.log.scalars(STAGE, self.env_steps, {"success": success})
        self.finished = self._good_enough()
        context.save(STAGE, self.round, self.tensors())

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.policy.state_dict().items()}

    def _keep_best(self) -> None:
        """Leave the better one of the last policy and the best so far in ``policy``.

        The best of many evaluations on the same start states is partly luck: one that had 100 % of
        200 there had 96 % of 500 others. So other start states decide; at equal success, the best.
        """
        last = self._weights()
        if self.finished or all(torch.equal(last[name], t) for name, t in self.best.items()):
            return  # confirmed already, or the same policy
        rate = self.source.evaluate(self.policy, "k_step", self.others).rate
        self.policy.load_state_dict(self.best)
        if rate > self.source.evaluate(self.policy, "k_step", self.others).rate:
            self.policy.load_state_dict(last)

    def _polish_student(self, context: RunContext) -> None:
        """The student learns the kept policy on its own observations, with a falling rate."""
        policy, config, steps = self.policy, self.config.imitation, self.config.distill.steps
        online = self.config.online
        latest = self.source.trajectories(policy, online.environments, online.decisions)
        device = self.learner.weights.device
        with torch.no_grad():
            condition = policy.condition(*(stack(latest, name).to(device) for name in OBSERVED))
        optimizer = torch.optim.Adam(policy.student.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        for step in range(steps):
            if context.stop():
                raise Interrupted(
                    "interrupted while the student was polished; the same command does it again"
                )
            rows = torch.randint(len(condition), (config.batch_size,), generator=generator)
            loss = consistency_loss(policy, condition[rows.to(device)], POLISH_LEVELS, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            shown = float(loss.detach())
            context.progress(Progress(STAGE, "polish student", step + 1, steps, shown))

    # --- checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed stage needs."""
        learner = self.learner
        points = [[float(e.env_steps), e.success] for e in self.curve]
        curve = torch.tensor(points, dtype=torch.float64)  # equal rates must stay equal
        return {
            **with_prefix("policy", self.policy.state_dict()),
            **with_prefix("best", self.best),
            **with_prefix("value", self.value.state_dict()),
            **with_prefix("actor", optimizer_tensors(learner.actor)),
            **with_prefix("student", optimizer_tensors(learner.student)),
            **with_prefix("critic", optimizer_tensors(learner.critic)),
            **with_prefix("source", self.source.state()),
            "generator": learner.generator.get_state(),
            "pace": torch.tensor(learner.pace, dtype=torch.float64),
            "env_steps": torch.tensor(self.env_steps),
            "curve": curve,
            "finished": torch.tensor(self.finished),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this stage; raises ContractError when it doesn't fit."""
        learner = self.learner
        try:
            self.policy.load_state_dict(checkpoint.part("policy"))
            device = self.learner.weights.device
            self.best = {k: t.to(device) for k, t in checkpoint.part("best").items()}
            self.value.load_state_dict(checkpoint.part("value"))
            for name in ("actor", "student", "critic"):
                tensors = checkpoint.part(name)
                if tensors:
                    load_optimizer(getattr(learner, name), tensors)
            learner.generator.set_state(checkpoint.tensors["generator"])
            learner.pace = float(checkpoint.tensors["pace"])
            self.source.set_state(checkpoint.part("source"))
            self._first_step = self.source.env_steps - int(checkpoint.tensors["env_steps"])
            self.curve = [Evaluated(int(n), float(s)) for n, s in checkpoint.tensors["curve"]]
            self.finished = bool(checkpoint.tensors["finished"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ContractError(
                f"the checkpoint doesn't fit this configuration ({str(error).splitlines()[0]})"
            ) from None
        self.round = checkpoint.state.step
