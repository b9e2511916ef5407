"""What the messages of a running episode say of it: steps, who acted, which chains belong to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rl100_contracts.decode import ExecutedStep, decode_executed
from rl100_contracts.interfaces import ensure_type

EXECUTED_TYPE = "rl100_msgs/msg/ExecutedAction"
CHAIN_TYPE = "rl100_msgs/msg/PolicyStep"


def _parse(data: bytes, kind: str) -> Any:
    return ensure_type(kind).deserialize_cdr(data, kind)


@dataclass
class Tally:
    """Counts of one episode; damaged messages are the audit's matter and count for nothing."""

    steps: int = 0
    newest_ns: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    _chains: set[int] = field(default_factory=set)
    _last: ExecutedStep | None = None  # that a policy's chunk brought

    def add(self, data: bytes, stamp_ns: int) -> None:
        """Count one serialized ExecutedAction."""
        if stamp_ns > self.newest_ns:
            self.newest_ns = stamp_ns
            self.steps += 1
        try:
            step = decode_executed(_parse(data, EXECUTED_TYPE))
        except Exception:
            return
        if step.source and not step.hold:
            self.sources[step.source] += 1
            if step.policy_version:
                self.versions[step.policy_version] += 1
                self._last = step

    def add_chain(self, data: bytes) -> None:
        """Count one serialized PolicyStep."""
        try:
            self._chains.add(int(_parse(data, CHAIN_TYPE).sequence))
        except Exception:
            return

    @property
    def chains_complete(self) -> bool:
        """Whether the newest executed decision's chain is here, if chains come at all.

        Topics are not ordered among each other, so a chain may come after its actions.
        """
        return not self._chains or self._last is None or self._last.chunk_sequence in self._chains

    @staticmethod
    def most(counter: Counter[str]) -> str:
        """The most frequent name, empty when there is none."""
        return counter.most_common(1)[0][0] if counter else ""
