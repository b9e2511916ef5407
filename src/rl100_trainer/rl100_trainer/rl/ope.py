"""AM-Q, a policy's value by rolling it out in the transition model, and the gate that uses it.

Ĵ(π) = E[Σ_{t<H} Q(s_t, a_t)] (paper; algorithm.md §3). Behaviour and candidate policy are rolled
out from the same start states with the same noise, so that their difference is paired. The gate
stops destruction; it sees no more than its critic does, so a policy that it accepts still wants a
short trial in the real task (:mod:`rl100_trainer.rl.sequential`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rl100_contracts.loading import finite
from rl100_trainer.networks.transition import Transition

OVER = 1e-6  # probability of going on below which a rollout counts as ended
Rule = Literal["paired", "margin", "both", "none"]
# (z (N, z), action (N, a), noise (N, z), member (N,) long) → Transition: GaussianEnsemble.step.
ModelStep = Callable[[Tensor, Tensor, Tensor, Tensor], Transition]
# (z (N, z), noise (N, …)) → normalised chunk (N, a).
PolicyAct = Callable[[Tensor, Tensor], Tensor]
# (z (N, z), action (N, a)) → Q of the twins (2, N).
TwinValue = Callable[[Tensor, Tensor], Tensor]
# What each further step of an ended task is worth: (N,). A number: the same for every end.
TerminalValue = float | Callable[[Transition], Tensor]


class Noise(NamedTuple):
    """Every random number of H model steps from N start states.

    policy (H, N, …) standard normal, model (H, N, z) standard normal, member (H, N) long: which
    elite predicts each step.
    """

    policy: Tensor
    model: Tensor
    member: Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """Result of :func:`estimate`.

    Attributes:
        sums: (N,) float32, Ĵ of each start state.
        model_disagreement: mean over the visited steps of Transition.disagreement.
        q_disagreement: mean over the visited steps of max - min over the twins of Q.
        ended: part of the rollouts that the model says have ended within the horizon.
        horizon: H, chunks.
    """

    sums: Tensor
    model_disagreement: float
    q_disagreement: float
    ended: float
    horizon: int

    @property
    def value(self) -> float:
        """Ĵ: the mean over the start states."""
        return float(self.sums.mean())


def horizon_of(episode_steps: int, chunk: int) -> int:
    """Chunks H that reach the end of an episode of ``episode_steps`` control steps.

    A shorter horizon stops before a late reward and then sees no difference.
    """
    return max(1, math.ceil(episode_steps / chunk))


def draw_noise(
    horizon: int,
    count: int,
    policy_shape: Sequence[int],
    z_dim: int,
    elites: int,
    generator: torch.Generator,
) -> Noise:
    """Noise for both policies, on the CPU (as is ``generator``).

    Args:
        horizon, count: H model steps from N start states.
        policy_shape: of what the policy takes for one decision, such as (K + 1, h, d).
        elites: members to choose from, anew at each step as MBPO does.
    """
    return Noise(
        torch.randn((horizon, count, *policy_shape), generator=generator),
        torch.randn((horizon, count, z_dim), generator=generator),
        torch.randint(elites, (horizon, count), generator=generator),
    )


@torch.no_grad()
def estimate(
    model_step: ModelStep,
    policy_act: PolicyAct,
    value_q: TwinValue,
    starts: Tensor,
    noise: Noise,
    *,
    terminal_value: TerminalValue,
) -> Estimate:
    """Ĵ of each start state: Σ_{t<H} of Q, or of the terminal value once the task has ended.

    An end isn't drawn but weighs: with w_t the probability of having got to step t, the step adds
    w_t min Q(s_t, a_t) plus the terminal value of all that ended before. Without the latter a
    policy that succeeds early would get fewer terms, and the gate would punish it.

    Args:
        value_q: twins; their minimum is what the actor was trained on.
        starts: (N, z) float32, one per episode: those of one episode aren't independent.
        noise: see :func:`draw_noise`; its length is the horizon H, see :func:`horizon_of`.
        terminal_value: with sparse rewards the reward of success (Q just before it is the same);
            where failures end the task too, a function of the transition (whose reward isn't
            conditioned on the end: divided by p_terminal it is, if it is paid at the end only).

    Raises:
        ValueError: no start state, or noise of another number of them.
    """
    count, device = len(starts), starts.device
    horizon = len(noise.model)
    if count == 0 or horizon == 0:
        raise ValueError("an estimate needs at least one start state and one step")
    for name, values in zip(Noise._fields, noise, strict=True):
        if values.shape[:2] != (horizon, count):
            raise ValueError(
                f"{name} noise {tuple(values.shape)} must begin with (H, N) = ({horizon}, {count})"
            )
    z = starts
    sums, banked = torch.zeros(count, device=device), torch.zeros(count, device=device)
    alive = torch.ones(count, device=device)
    visited, spread, q_spread = (torch.zeros((), device=device) for _ in range(3))
    for t in range(horizon):
        action = policy_act(z, noise.policy[t].to(device))
        q = value_q(z, action)
        sums += alive * q.amin(dim=0) + banked
        then = model_step(z, action, noise.model[t].to(device), noise.member[t].to(device))
        visited += alive.sum()
        q_spread += (alive * (q.amax(dim=0) - q.amin(dim=0))).sum()
        spread += (alive * then.disagreement).sum()
        ending = alive * then.p_terminal
        worth = terminal_value(then) if callable(terminal_value) else terminal_value
        banked = banked + ending * worth
        alive = alive - ending
        # A rollout that is over stays where it is: beyond the end the model knows nothing.
        z = torch.where((alive > OVER)[:, None], then.next_z, z)
    return Estimate(
        sums=sums,
        model_disagreement=float(spread / visited),
        q_disagreement=float(q_spread / visited),
        ended=float(1.0 - alive.mean()),
        horizon=horizon,
    )


def averaged(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates from the same start states with different noise.

    Most of what two policies differ by in one draw is noise: their rollouts part at the first
    different action. Averaged over draws the paired difference of each start state keeps its mean
    and loses that spread; the start states stay the samples.

    Raises:
        ValueError: no estimate, or of different start states or horizons.
    """
    kinds = {(tuple(e.sums.shape), e.horizon) for e in estimates}
    if len(kinds) != 1:
        raise ValueError("only estimates of the same start states and horizon have a mean")
    return Estimate(
        sums=torch.stack([e.sums for e in estimates]).mean(0),
        model_disagreement=fmean(e.model_disagreement for e in estimates),
        q_disagreement=fmean(e.q_disagreement for e in estimates),
        ended=fmean(e.ended for e in estimates),
        horizon=estimates[0].horizon,
    )


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and what it rests on; J is Ĵ, in units of Q times chunks.

    Attributes:
        reason: one sentence.
        standard_error: of the paired difference.
        margin: least difference that the margin rule asks for.
        kl: KL(behaviour ‖ candidate) of a denoising chain, nats, as given to the gate.
        alarm: Ĵ rose together with disagreement or KL, as it did before known collapses.
    """

    accepted: bool
    reason: str
    rule: Rule
    j_behaviour: float
    j_candidate: float
    difference: float
    standard_error: float
    margin: float
    kl: float
    q_disagreement_behaviour: float
    q_disagreement_candidate: float
    model_disagreement_behaviour: float
    model_disagreement_candidate: float
    alarm: bool

    def as_dict(self) -> dict[str, bool | float | str | None]:
        """For logs and JSON: what isn't a finite number is None."""
        return dict(finite(asdict(self)))


@dataclass(frozen=True)
class Gate:
    """Accepts a candidate policy or keeps the behaviour policy.

    Attributes:
        rule: ``paired``: mean / standard error of the difference > z. ``margin`` (paper): the
            difference is at least margin · max(|Ĵ_old - baseline|, minimum). ``both``; ``none``:
            accepts whatever is finite.
        minimum: least scale of the margin; None: the standard deviation of Ĵ_old over the start
            states, which neither vanishes with Ĵ_old nor moves with the reward's offset.
        baseline: Ĵ of a policy that never succeeds. With rewards of 0 and 1 it is 0 (the paper's
            rule); with a reward per step it takes the offset out of |Ĵ_old|.
        allow_one_outcome: judge also after data that held only successes or only failures.
        alarm_ratio: growth of a disagreement that raises the alarm.
        alarm_kl: KL that raises the alarm, nats.
    """

    rule: Rule = "paired"
    z: float = 2.0
    margin: float = 0.05
    minimum: float | None = None
    baseline: float = 0.0
    allow_one_outcome: bool = False
    alarm_ratio: float = 1.5
    alarm_kl: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, not '{self.rule}'")

    def decide(
        self, behaviour: Estimate, candidate: Estimate, outcomes: Collection[str], kl: float = 0.0
    ) -> Verdict:
        """Compare two estimates that were made with the same starts and noise.

        Args:
            outcomes: of the episodes in the data (success, failure, unknown).
            kl: KL(behaviour ‖ candidate) of a chain, nats.

        Raises:
            ValueError: estimates that can't be paired, or of fewer than two start states.
        """
        old, new = behaviour.sums.double(), candidate.sums.double()
        if old.shape != new.shape or len(old) < 2 or behaviour.horizon != candidate.horizon:
            raise ValueError("a pair needs the same two or more start states and one horizon")
        paired = new - old
        difference = float(paired.mean())
        error = float(paired.std()) / math.sqrt(len(paired))
        least = float(old.std()) if self.minimum is None else self.minimum
        margin = self.margin * max(abs(float(old.mean()) - self.baseline), least)
        accepted, reason = self._judge(difference, error, margin, outcomes)
        warnings = self._warnings(behaviour, candidate, kl) if difference > 0.0 else []
        if warnings:
            reason += f"; alarm: Ĵ rose together with {' and '.join(warnings)}"
        return Verdict(
            accepted=accepted,
            reason=reason,
            rule=self.rule,
            j_behaviour=float(old.mean()),
            j_candidate=float(new.mean()),
            difference=difference,
            standard_error=error,
            margin=margin,
            kl=kl,
            q_disagreement_behaviour=behaviour.q_disagreement,
            q_disagreement_candidate=candidate.q_disagreement,
            model_disagreement_behaviour=behaviour.model_disagreement,
            model_disagreement_candidate=candidate.model_disagreement,
            alarm=bool(warnings),
        )

    def _judge(
        self, difference: float, error: float, margin: float, outcomes: Collection[str]
    ) -> tuple[bool, str]:
        if not math.isfinite(difference):
            return False, "refused: an estimate isn't finite, so critic, model or policy diverged"
        if self.rule == "none":
            return True, "accepted: there is no gate"
        seen = sorted({"success", "failure"} & set(outcomes))
        if len(seen) < 2 and not self.allow_one_outcome:
            held = f"only episodes of outcome {seen[0]}" if seen else "no labelled episode"
            return False, (
                f"refused: the data held {held}, and a critic that never saw the other "
                "can't tell policies apart; record and keep both"
            )
        # An equal policy isn't better, also where spread and margin are zero.
        clear = difference > 0.0 and difference > self.z * error
        enough = difference > 0.0 and difference >= margin
        passed = {"paired": clear, "margin": enough, "both": clear and enough}[self.rule]
        figures = f"ΔĴ {difference:.4g} ± {error:.2g}"
        if self.rule != "paired":
            figures += f", margin {margin:.2g}"
        return passed, f"{'accepted' if passed else 'refused'} by rule {self.rule}: {figures}"

    def _warnings(self, behaviour: Estimate, candidate: Estimate, kl: float) -> list[str]:
        found = []
        if candidate.q_disagreement > self.alarm_ratio * behaviour.q_disagreement:
            found.append("the disagreement of the critics")
        if candidate.model_disagreement > self.alarm_ratio * behaviour.model_disagreement:
            found.append("the disagreement of the models")
        if not kl <= self.alarm_kl:  # also when it is NaN
            found.append(f"a KL of {kl:.2g}")
        return found
