"""AM-Q and its gate: equal policies differ by exactly 0, hand-computed Ĵ, early success isn't
punished, each rule, data with one outcome, the alarm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from rl100_trainer.networks.transition import Transition
from rl100_trainer.rl.ope import (
    Estimate,
    Gate,
    Noise,
    Verdict,
    averaged,
    draw_noise,
    estimate,
    horizon_of,
)

BOTH = ("success", "failure", "unknown")


def walk(
    z: torch.Tensor, action: torch.Tensor, noise: torch.Tensor, member: torch.Tensor
) -> Transition:
    """z moves by the action and the noise; the task ends, for sure, at z ≥ 3 (reward 1)."""
    then = z + action + noise
    ended = (then[:, 0] >= 3.0).float()
    return Transition(then, ended, ended, 0.1 * (1.0 + member))


def twins(z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    value = 10.0 * z[:, 0] + action[:, 0]
    return torch.stack([value + 0.5, value])


def steady(pace: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda z, noise: torch.full((len(z), 1), pace) + noise


def still(horizon: int, count: int) -> Noise:
    """No noise at all."""
    zero = torch.zeros(horizon, count, 1)
    return Noise(zero, zero, torch.zeros(horizon, count, dtype=torch.long))


def test_hand_computed() -> None:
    starts = torch.tensor([[0.0], [-1.0]])
    result = estimate(walk, steady(1.0), twins, starts, still(5, 2), terminal_value=7.0)
    # From 0: 0+1, 10+1, 20+1, then it has ended: 7, 7. From -1: -9, 1, 11, 21, 7.
    assert result.sums.tolist() == [1.0 + 11.0 + 21.0 + 14.0, -9.0 + 1.0 + 11.0 + 21.0 + 7.0]
    assert result.value == pytest.approx(39.0)
    assert result.q_disagreement == pytest.approx(0.5)
    assert result.model_disagreement == pytest.approx(0.1)
    assert result.ended == 1.0 and result.horizon == 5


def test_an_uncertain_end_weighs_with_its_probability() -> None:
    def half(z: torch.Tensor, *_: torch.Tensor) -> Transition:
        ones = torch.ones(len(z))
        return Transition(z, 0.25 * ones, 0.5 * ones, 0.0 * ones)

    def one(z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return torch.ones(2, len(z))

    starts, act = torch.zeros(1, 1), steady(0.0)
    result = estimate(half, act, one, starts, still(3, 1), terminal_value=4.0)
    # 1; ½·1 + ½·4; ¼·1 + ¾·4
    assert float(result.sums) == pytest.approx(1.0 + 2.5 + 3.25)
    assert result.ended == pytest.approx(0.875)
    paid = estimate(
        half, act, one, starts, still(3, 1), terminal_value=lambda then: then.reward / 0.5
    )
    assert float(paid.sums) == pytest.approx(1.0 + (0.5 + 0.25) + (0.25 + 0.375))


def test_equal_policies_differ_by_exactly_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(20, 1, generator=generator)
    noise = draw_noise(6, 20, (1,), 1, 5, generator)
    assert int(noise.member.max()) == 4 and noise.policy.shape == (6, 20, 1)
    first, second = (
        estimate(walk, steady(0.2), twins, starts, noise, terminal_value=1.0) for _ in range(2)
    )
    assert torch.equal(first.sums, second.sums)
    for rule in ("paired", "margin", "both"):
        verdict = Gate(rule=rule, minimum=0.0).decide(first, second, BOTH)
        assert verdict.difference == 0.0 and verdict.standard_error == 0.0
        assert not verdict.accepted


def test_early_success_is_not_punished() -> None:
    """Sparse reward 1, Q = γ^(chunks left): the policy that succeeds sooner must look better."""

    def sparse(z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        left = torch.ceil((3.0 - z[:, 0]) / action[:, 0]) - 1.0
        return torch.pow(0.9, left).expand(2, -1)

    starts = torch.zeros(2, 1)
    noise = still(8, 2)
    slow, fast, unpaid = (
        estimate(walk, steady(pace), sparse, starts, noise, terminal_value=value)
        for pace, value in [(0.5, 1.0), (1.5, 1.0), (1.5, 0.0)]
    )
    assert fast.value > slow.value > unpaid.value
    assert float(fast.sums[0]) == pytest.approx(0.9 + 1.0 + 6.0)


def test_a_rollout_beyond_its_end_cannot_spoil_the_sum() -> None:
    def explode(z: torch.Tensor, *_: torch.Tensor) -> Transition:
        ones = torch.ones(len(z))
        return Transition(z * 1e30 + 1e30, ones, ones, ones)

    result = estimate(
        explode, steady(1.0), twins, torch.ones(2, 1), still(5, 2), terminal_value=1.0
    )
    assert result.sums.tolist() == [15.0, 15.0]


def test_the_horizon_reaches_the_end() -> None:
    assert [horizon_of(80, 4), horizon_of(81, 4), horizon_of(1, 8)] == [20, 21, 1]
    starts = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"\(H, N\) = \(4, 3\)"):
        estimate(walk, steady(1.0), twins, starts, still(4, 2), terminal_value=1.0)
    with pytest.raises(ValueError, match="at least one start"):
        estimate(walk, steady(1.0), twins, starts[:0], still(4, 0), terminal_value=1.0)


def made(sums: list[float], q: float = 0.1, model: float = 0.1) -> Estimate:
    return Estimate(torch.tensor(sums), model, q, 0.0, 8)


def test_draws_take_noise_out_of_each_start_state() -> None:
    """Two draws that err alike and opposite: one sees no difference, both together a clear one."""
    first, second = [3.0, -1.0, 3.0, -1.0], [-2.0, 2.2, -2.0, 2.2]
    old = made([10.0] * 4)
    draws = [made([10.0 + x for x in gains]) for gains in (first, second)]
    assert not Gate().decide(averaged([old]), averaged(draws[:1]), BOTH).accepted
    verdict = Gate().decide(averaged([old, old]), averaged(draws), BOTH)
    assert verdict.accepted and verdict.difference == pytest.approx(0.55)
    assert verdict.standard_error == pytest.approx(0.05 / math.sqrt(3.0), rel=1e-4)
    mixed = averaged([made([1.0, 3.0], q=0.1, model=0.4), made([3.0, 5.0], q=0.3, model=0.2)])
    assert mixed.sums.tolist() == [2.0, 4.0] and mixed.horizon == 8
    assert mixed.q_disagreement == pytest.approx(0.2)
    assert mixed.model_disagreement == pytest.approx(0.3)


def test_only_what_can_be_paired_is_averaged() -> None:
    for estimates in ([], [made([1.0, 2.0]), made([1.0])]):
        with pytest.raises(ValueError, match="same start states"):
            averaged(estimates)


OLD = [10.0, 12.0, 8.0, 10.0]


@pytest.mark.parametrize(
    ("shift", "paired", "margin"),
    [
        ([0.1, 0.1, 0.1, 0.1], True, False),  # surely better, but by 1 %
        ([4.0, -2.0, 4.0, -2.0], False, True),  # by 10 %, but only in some states
        ([1.0, 0.8, 1.2, 1.0], True, True),
        ([-1.0, -1.0, -1.0, -1.0], False, False),
        ([0.0, 0.0, 0.0, 0.0], False, False),
    ],
)
def test_rules(shift: list[float], paired: bool, margin: bool) -> None:
    old, new = made(OLD), made([a + b for a, b in zip(OLD, shift, strict=True)])
    expected = {"paired": paired, "margin": margin, "both": paired and margin, "none": True}
    for rule, accepted in expected.items():
        verdict = Gate(rule=rule).decide(old, new, BOTH, kl=0.02)
        assert verdict.accepted is accepted, verdict
        assert verdict.reason.startswith("accepted" if accepted else "refused")
        assert verdict.margin == pytest.approx(0.5)
        assert verdict.j_candidate - verdict.j_behaviour == pytest.approx(verdict.difference)
    differences = torch.tensor(shift)
    assert verdict.standard_error == pytest.approx(float(differences.std()) / 2.0, abs=1e-6)
    assert verdict.kl == 0.02


def test_an_equal_policy_is_refused_also_where_nothing_has_spread() -> None:
    flat = made([0.0, 0.0, 0.0])
    for rule in ("paired", "margin", "both"):
        assert not Gate(rule=rule).decide(flat, flat, BOTH).accepted
        assert Gate(rule=rule).decide(flat, made([0.1, 0.1, 0.1]), BOTH).accepted


def test_the_margin_near_zero_and_with_an_offset() -> None:
    old, new = made([-1.0, 1.0, -1.0, 1.0]), made([-0.97, 1.03, -0.97, 1.03])
    spread = torch.tensor([-1.0, 1.0, -1.0, 1.0]).std()
    verdict = Gate(rule="margin").decide(old, new, BOTH)
    assert not verdict.accepted and verdict.margin == pytest.approx(0.05 * float(spread))
    assert Gate(rule="margin", minimum=0.5).decide(old, new, BOTH).accepted
    # A cost of 1 per step lifts |Ĵ|, and with it the paper's margin, unless it is taken out.
    cheap = [made([x - 100.0 for x in sums]) for sums in (OLD, [x + 1.0 for x in OLD])]
    assert not Gate(rule="margin").decide(*cheap, BOTH).accepted
    assert Gate(rule="margin", baseline=-100.0).decide(*cheap, BOTH).accepted


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        (("success",), "only episodes of outcome success"),
        (("failure", "unknown"), "outcome failure"),
        (("unknown",), "no labelled episode"),
    ],
)
def test_data_with_one_outcome_is_refused(outcomes: tuple[str, ...], words: str) -> None:
    old, new = made(OLD), made([x + 5.0 for x in OLD])
    verdict = Gate(rule="both").decide(old, new, outcomes)
    assert not verdict.accepted and words in verdict.reason
    assert Gate(rule="both", allow_one_outcome=True).decide(old, new, outcomes).accepted


def test_what_is_not_finite_is_refused_also_without_a_gate() -> None:
    broken = made([math.nan, *OLD[1:]])
    for pair in [(made(OLD), broken), (broken, made(OLD))]:
        verdict = Gate(rule="none").decide(*pair, BOTH)
        assert not verdict.accepted and "isn't finite" in verdict.reason
        json.dumps(verdict.as_dict(), allow_nan=False)
    assert verdict.as_dict()["difference"] is None


def test_alarm_when_value_rises_with_disagreement_or_kl() -> None:
    old, better = made(OLD), [x + 1.0 for x in OLD]

    def alarm(sums: list[float], q: float, model: float, kl: float) -> Verdict:
        return Gate().decide(old, made(sums, q, model), BOTH, kl)

    assert not alarm(better, 0.11, 0.11, 0.1).alarm
    doubtful = alarm(better, 0.2, 0.1, 0.1)
    assert doubtful.alarm and "disagreement of the critics" in doubtful.reason
    assert alarm(better, 0.1, 0.2, 0.1).alarm and alarm(better, 0.1, 0.1, 3.0).alarm
    assert not alarm([x - 1.0 for x in OLD], 0.3, 0.3, 3.0).alarm


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more start states"):
        Gate().decide(made(OLD), made(OLD[:3]), BOTH)
    with pytest.raises(ValueError, match="rule must be one of paired"):
        Gate(rule="maybe")  # type: ignore[arg-type]
