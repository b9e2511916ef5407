"""Bag/live parity: does a recorded bag give the very tensors that the policy saw?

The policy node writes a digest of its observation into each chunk. Here the observations are
assembled again from the recorded messages and compared bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rl100_contracts.chunks import chunk_from_message
from rl100_contracts.decode import decode, message_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import ObservationAssembler, observed_streams
from rl100_contracts.task import Task


@dataclass(frozen=True)
class Parity:
    """How many decisions were compared, and at which stamps (ns) they differed."""

    compared: int
    different: list[int]


def check_parity(episode: Path, task: Task) -> Parity:
    """Compare every recorded decision with the observation assembled from the bag.

    Raises:
        ContractError: the bag is damaged, or holds no chunk with a digest.
    """
    chunk_stream = next(
        (n for n, s in task.streams.items() if s.type == "rl100_msgs/msg/ActionChunk"), None
    )
    if chunk_stream is None:
        raise ContractError(f"task '{task.name}' records no action chunks: add them to its streams")
    observed = observed_streams(task)
    assembler = ObservationAssembler(task, keep_s=None)
    digests: dict[int, int] = {}
    with EpisodeReader(episode, task) as reader:
        for name, msg in reader.messages([*observed, chunk_stream]):
            if name == chunk_stream:
                chunk = chunk_from_message(msg, task)
                if chunk.observation_digest:
                    digests[chunk.observation_ns] = chunk.observation_digest
            else:
                assembler.add(name, message_stamp_ns(msg), decode(task, name, msg))
    if not digests:
        raise ContractError(f"{episode}: no policy acted in this episode, nothing to compare")
    different = [
        stamp for stamp, digest in digests.items() if assembler.observe(stamp).digest() != digest
    ]
    return Parity(len(digests), different)
