"""For tests: a recording session with a clock that the test moves, and its messages."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from rl100_contracts.decode import peek_stamp_ns
from rl100_contracts.episode import EpisodeReader
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.task import NANOSECONDS, Task, load_task
from rl100_teleop.recorder.session import (
    EXECUTED_TYPE,
    REWARD_TYPE,
    Ended,
    RecordingSession,
    Settings,
)
from rl100_teleop.recorder.tally import CHAIN_TYPE

PERIOD = NANOSECONDS // 20
SIM_START = 100 * NANOSECONDS
OBSERVED = ("joint_states", "tool_pose", "points", "depth", "camera_info")
SUCCESS, FAILURE, DISCARD, STOP, REWARD = range(5)


def header(stamp_ns: int) -> bytes:
    """The start of any serialized message with a header."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return b"\x00\x01\x00\x00" + struct.pack("<iI", sec, nanosec)


def _header_object(stamp_ns: int) -> Any:
    types = ensure_type(REWARD_TYPE).types
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    time = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return types["std_msgs/msg/Header"](stamp=time, frame_id="")


def reward(kind: int, stamp_ns: int, labeller: str = "keyboard") -> bytes:
    """A serialized RewardEvent."""
    store = ensure_type(REWARD_TYPE)
    event = store.types[REWARD_TYPE](
        header=_header_object(stamp_ns), kind=kind, value=0.0, labeller=labeller
    )
    return bytes(store.serialize_cdr(event, REWARD_TYPE))


def chain(stamp_ns: int, sequence: int) -> bytes:
    """A serialized PolicyStep of one denoising step."""
    store = ensure_type(CHAIN_TYPE)
    message = store.types[CHAIN_TYPE](
        header=_header_object(stamp_ns), sequence=sequence, policy_version="v1",
        denoising_steps=1, horizon=1, action_dim=2, chain=np.zeros(4, np.float32),
        log_probs=np.zeros(1, np.float32), timesteps=np.zeros(1, np.uint32),
    )  # fmt: skip
    return bytes(store.serialize_cdr(message, CHAIN_TYPE))


def executed(
    stamp_ns: int, source: str = "policy", version: str = "v1", sequence: int = 1
) -> bytes:
    """A serialized ExecutedAction."""
    store = ensure_type(EXECUTED_TYPE)
    message = store.types[EXECUTED_TYPE](
        header=_header_object(stamp_ns), mode=2, source=source, policy_version=version,
        chunk_sequence=sequence, chunk_index=0, hold=False, limited=False,
        raw_action=np.zeros(2, np.float32), action=np.zeros(2, np.float32),
        target=np.zeros(2), feedback=np.zeros(2), reason="",
        planned_target=np.zeros(2), sent=True, shadow_version="", shadow_sequence=0,
        shadow_index=0, shadow_raw_action=np.zeros(0, np.float32),
        shadow_action=np.zeros(0, np.float32), shadow_target=np.zeros(0), shadow_deviation=0.0,
    )  # fmt: skip
    return bytes(store.serialize_cdr(message, EXECUTED_TYPE))


class Bench:
    """A session with a clock that the test moves."""

    def __init__(self, data: Path, *, lockstep: bool = True, task: Task | None = None) -> None:
        self.now = 0.0
        self.data = data
        self.task = task or load_task("push")
        settings = Settings(lockstep=lockstep, min_free_mb=0.0)
        self.session = RecordingSession(self.task, data, settings, clock=lambda: self.now)

    def observe(self, stamp_ns: int) -> None:
        """One message of each observed stream."""
        for name in OBSERVED:
            self.session.receive(name, header(stamp_ns))

    def tick(self, stamp_ns: int, **action: Any) -> None:
        """An observation and the action that was executed on it."""
        self.observe(stamp_ns)
        self.session.receive("executed_action", executed(stamp_ns, **action))

    def ticks(self, first: int, count: int, start_ns: int = SIM_START, **action: Any) -> None:
        """``count`` ticks of the control period, numbered from ``first``."""
        for index in range(first, first + count):
            self.tick(start_ns + index * PERIOD, **action)

    def label(self, kind: int, stamp_ns: int) -> None:
        """What a person pressed."""
        self.session.receive("reward", reward(kind, stamp_ns))

    def close(self) -> Ended:
        """End and save the episode that is over."""
        closing = self.session.poll()
        assert closing is not None
        return closing.save()

    def stamps(self, name: str, stream: str = "points") -> list[int]:
        """Stamps of a saved episode's messages, ns."""
        topic = self.task.streams[stream].topic
        with EpisodeReader(self.data / name, self.task) as reader:
            return [peek_stamp_ns(data) for _, _, _, data in reader.raw([topic])]
