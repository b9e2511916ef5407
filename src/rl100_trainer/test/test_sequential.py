"""The sequential test: false alarms stay below alpha under continuous looking, clear differences
end it early, verdicts stay, and what is adopted at the limit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl100_trainer.rl.sequential import SequentialTest, log_evidence


def run(rng: np.random.Generator, candidate: float, behaviour: float) -> SequentialTest:
    """A whole trial with success rates; looks after every pair."""
    test = SequentialTest()
    while not test.finished:
        test.update(bool(rng.random() < candidate), bool(rng.random() < behaviour))
    return test


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_false_alarms_stay_below_alpha(rate: float) -> None:
    rng = np.random.default_rng(0)
    trials = 400
    alarms = sum(run(rng, rate, rate).verdict != "undecided" for _ in range(trials))
    # At most alpha = 5 %; room for two and a half standard errors of the simulation.
    assert alarms / trials <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)
    assert alarms / trials < 0.05  # of this seed; the test is on the safe side


def test_the_wealth_is_a_fair_game_and_never_favours_a_worse_policy() -> None:
    """Over all outcomes of n coins its mean is 1 for a fair coin and less for an unfavourable."""
    count = 12
    for probability, mean in [(0.5, pytest.approx(1.0)), (0.4, None)]:
        total = sum(
            math.comb(count, wins)
            * probability**wins
            * (1.0 - probability) ** (count - wins)
            * math.exp(log_evidence(wins, count - wins))
            for wins in range(count + 1)
        )
        assert total == mean if mean is not None else total < 1.0


def test_the_mixture_is_the_beta_integral() -> None:
    """Both sides together: B(w + ½, l + ½) / B(½, ½) · 2^(w + l), averaged over the sides."""
    for wins, losses in [(0, 0), (5, 0), (9, 3), (30, 20)]:
        both = 0.5 * (math.exp(log_evidence(wins, losses)) + math.exp(log_evidence(losses, wins)))
        beta = math.lgamma(wins + 0.5) + math.lgamma(losses + 0.5) - math.lgamma(wins + losses + 1)
        closed = math.exp(beta - math.log(math.pi) + (wins + losses) * math.log(2.0))
        assert both == pytest.approx(closed, rel=2e-3)


def test_a_large_gain_is_seen_early_and_a_loss_too() -> None:
    rng = np.random.default_rng(1)
    better = [run(rng, 0.85, 0.5) for _ in range(40)]
    worse = [run(rng, 0.3, 0.7) for _ in range(40)]
    assert sum(t.verdict == "better" for t in better) >= 36
    assert sum(t.verdict == "worse" for t in worse) >= 36
    assert np.median([t.pairs for t in better]) < 75
    assert not any(t.adopt() for t in worse if t.verdict == "worse")


def test_ties_tell_nothing_and_a_verdict_stays() -> None:
    test = SequentialTest(limit=100)
    for _ in range(20):
        assert test.update(True, True) == "undecided"
    assert log_evidence(test.wins, test.losses) == pytest.approx(0.0)
    while test.update(True, False) == "undecided":
        assert not test.adopt()
    assert test.verdict == "better" and test.finished and test.adopt()
    assert 5 <= test.wins <= 10 and test.ties == 20
    for _ in range(30):
        test.update(False, True)
    assert test.verdict == "better"
    assert test.as_dict()["losses"] == 30.0


@pytest.mark.parametrize(("outcomes", "adopted"), [("+-", True), ("+--", False), ("==", True)])
def test_undecided_at_the_limit(outcomes: str, adopted: bool) -> None:
    test = SequentialTest(limit=len(outcomes))
    for number, outcome in enumerate(outcomes):
        assert not test.finished
        assert not test.adopt() or number == len(outcomes)
        test.update(outcome in "+=", outcome in "-=")
    assert test.finished and test.verdict == "undecided"
    assert test.adopt() is adopted
    assert test.adopt(at_limit=False) is False


def test_no_pair_is_no_reason_to_adopt() -> None:
    assert SequentialTest().adopt(at_limit=True) is False
    with pytest.raises(ValueError, match="alpha"):
        SequentialTest(alpha=1.0)
    with pytest.raises(ValueError, match="limit"):
        SequentialTest(limit=0)
