"""Which start states each part of a run takes: no two the same, nor those of demonstrations.

That holds while a part of an iteration takes no more than its share of ``OF_AN_ITERATION``.
"""

from __future__ import annotations

ROLLOUTS, TRIALS, CHOICE = 3_000_000, 4_000_000, 5_000_000
OF_AN_ITERATION = 10_000
TRIALS_OF_AN_ITERATION = 4


def _starts(base: int, run_seed: int, iteration: int, count: int) -> range:
    first = base + (run_seed * 100 + iteration) * OF_AN_ITERATION
    return range(first, first + count)


def rollout_starts(run_seed: int, iteration: int, count: int) -> range:
    """Seeds of the rollouts that an iteration adds."""
    return _starts(ROLLOUTS, run_seed, iteration, count)


def trial_starts(run_seed: int, iteration: int, which: int, count: int) -> range:
    """Seeds of an iteration's trial number ``which``, below ``TRIALS_OF_AN_ITERATION``."""
    base = TRIALS + which * OF_AN_ITERATION // TRIALS_OF_AN_ITERATION
    return _starts(base, run_seed, iteration, count)


def choice_starts(run_seed: int, count: int) -> range:
    """Seeds of the evaluations that choose the online stage's best policy."""
    return _starts(CHOICE, run_seed, 0, count)
