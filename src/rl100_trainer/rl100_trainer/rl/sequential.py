"""A paired sequential test: is the candidate better than the behaviour policy in the real task?

Both policies are tried from the same start states. Only discordant pairs (one succeeds, the other
fails) tell them apart, and if the policies are equally good each of these is a fair coin. The
evidence against "not better" is the wealth of a gambler who bets on the candidate: with a bet that
stands for a win probability p he multiplies his wealth by 2p at a win and by 2(1 - p) at a loss.
A mixture over p of such bets starts at 1 and, as long as the true probability is ½ or less, is a
supermartingale: it exceeds 1/α with a probability of at most α at *any* time (Ville), so looking
after every pair costs nothing. (Robbins 1970; Ramdas et al. 2023, "Game-theoretic statistics".)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

TestVerdict = Literal["better", "worse", "undecided"]
NODES = 256

# The Beta(½, ½) mixture, restricted to p > ½: p = sin²φ is Beta(½, ½) for φ uniform on (0, π/2).
# A mean over nodes is itself a mixture of bets, so the test is exact whatever their number.
_ANGLES = np.pi / 4.0 * (1.0 + (np.arange(NODES) + 0.5) / NODES)
_LOG_WIN = np.log(2.0 * np.sin(_ANGLES) ** 2)
_LOG_LOSS = np.log(2.0 * np.cos(_ANGLES) ** 2)


def log_evidence(wins: int, losses: int) -> float:
    """Log wealth after betting on wins, natural logarithm; 0 without discordant pairs."""
    logs = wins * _LOG_WIN + losses * _LOG_LOSS
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


class SequentialTest:
    """Counts paired outcomes and says as soon as they suffice.

    Between equally good policies, the probability of ever saying "better" or "worse" is at most
    ``alpha`` (half of it for each side). A verdict stays.

    Args:
        alpha: 0…1, exclusive.
        limit: pairs after which the trial is over.

    Raises:
        ValueError: alpha or limit out of range.
    """

    def __init__(self, alpha: float = 0.05, limit: int = 150) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        self.alpha, self.limit = alpha, limit
        self.wins = self.losses = self.ties = 0
        self._verdict: TestVerdict = "undecided"

    def update(self, candidate: bool, behaviour: bool) -> TestVerdict:
        """Count one pair (did each succeed?); returns the verdict."""
        if candidate == behaviour:
            self.ties += 1
            return self._verdict
        self.wins += int(candidate)
        self.losses += int(behaviour)
        threshold = math.log(2.0 / self.alpha)
        if self._verdict == "undecided":
            if log_evidence(self.wins, self.losses) >= threshold:
                self._verdict = "better"
            elif log_evidence(self.losses, self.wins) >= threshold:
                self._verdict = "worse"
        return self._verdict

    @property
    def verdict(self) -> TestVerdict:
        """What the pairs so far say about the candidate."""
        return self._verdict

    @property
    def pairs(self) -> int:
        """Pairs that were counted."""
        return self.wins + self.losses + self.ties

    @property
    def finished(self) -> bool:
        """No further pair is needed: there is a verdict, or the limit is reached."""
        return self._verdict != "undecided" or self.pairs >= self.limit

    def adopt(self, at_limit: bool | None = None) -> bool:
        """Whether to adopt the candidate.

        If it is better; undecided at the limit, if it won at least as often as it lost.

        Args:
            at_limit: no more pairs will come; None: ask whether ``limit`` is reached.
        """
        if self._verdict != "undecided":
            return self._verdict == "better"
        over = self.pairs >= self.limit if at_limit is None else at_limit
        return over and self.pairs > 0 and self.wins >= self.losses

    def as_dict(self) -> dict[str, float | str]:
        """Counts, evidence (natural logarithm of the wealth) and verdict, for logs."""
        return {
            "wins": float(self.wins),
            "losses": float(self.losses),
            "ties": float(self.ties),
            "log_evidence_better": log_evidence(self.wins, self.losses),
            "log_evidence_worse": log_evidence(self.losses, self.wins),
            "verdict": self._verdict,
        }
