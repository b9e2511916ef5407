"""Bag/live parity: does a recorded bag give the very tensors that the policy saw?

The policy node writes a digest of its observation into each chunk. Here the observations are
assembled again from the recorded messages and compared bit by bit; and the recorded clouds are
made again from the recorded images of the cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rl100.clouds import IMAGES_KEPT
from rl100_contracts.chunks import chunk_from_message
from rl100_contracts.decode import FloatArray, decode, decode_cloud, message_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import ObservationAssembler, observed_streams
from rl100_contracts.task import Task
from rl100_perception.maker import CloudMaker, Made


@dataclass(frozen=True)
class Parity:
    """How many decisions or clouds were compared, and at which stamps (ns) they differed."""

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


def check_clouds(episode: Path, task: Task) -> Parity:
    """Make every recorded cloud again from the recorded images, and compare the points.

    A cloud whose images are not in the bag (they came before its beginning) is left out.

    Raises:
        ContractError: the bag is damaged, or the task observes no cloud.
    """
    maker = CloudMaker(task, keep=IMAGES_KEPT)
    used = [*maker.image_streams, *maker.other_streams]
    recorded: dict[int, FloatArray] = {}
    made: dict[int, FloatArray] = {}
    with EpisodeReader(episode, task) as reader:
        for name, msg in reader.messages([*used, task.cloud.stream]):
            if name == task.cloud.stream:
                recorded[message_stamp_ns(msg)] = decode_cloud(msg)
                continue
            for outcome in maker.add(name, msg):
                if isinstance(outcome, Made):
                    made[outcome.stamp_ns] = outcome.result.points
    both = sorted(recorded.keys() & made.keys())
    # By their bytes: a cloud is bit for bit the same or it is another one.
    different = [s for s in both if recorded[s].tobytes() != made[s].tobytes()]
    return Parity(len(both), different)
