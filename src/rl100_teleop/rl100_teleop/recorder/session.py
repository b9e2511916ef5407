"""What the recorder decides, without ROS: when to start, what to keep, when an episode is over.

One episode runs at a time. ``receive`` takes every message; ``poll`` hands out an episode that is
over, so that the slow part (``Closing.save``) may run in another thread while the next one starts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rl100_contracts.decode import message_stamp_ns, peek_stamp_ns
from rl100_contracts.episode import PARTIAL, Outcome
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.observation import BREAK_PERIODS
from rl100_contracts.streams import Role, Stream
from rl100_contracts.task import NANOSECONDS, Task
from rl100_teleop.recorder.stamps import Place, WorldClock
from rl100_teleop.recorder.tally import CHAIN_TYPE, EXECUTED_TYPE, Tally

REWARD_TOPIC = "/rl100/reward"
REWARD_TYPE = "rl100_msgs/msg/RewardEvent"

# RewardEvent.kind. A stop is no verdict on the episode, so none is invented.
_OUTCOMES = {0: Outcome.SUCCESS, 1: Outcome.FAILURE, 2: Outcome.DISCARDED, 3: Outcome.UNKNOWN}
_STOP = 3

PERSON_S = 60.0  # shortest limit of an episode in real time
_FAR_AHEAD_NS = 60 * NANOSECONDS


@dataclass(frozen=True)
class Settings:
    """How the recorder works; times are wall times, s."""

    lockstep: bool = False
    fresh_s: float = 0.5
    grace_s: float = 0.5
    max_length_s: float = 0.0
    stall_s: float = 60.0
    min_free_mb: float = 200.0


@dataclass(frozen=True)
class Verdict:
    """Who ended an episode and how; ``stamp_ns`` 0: now."""

    outcome: Outcome
    labeller: str
    stamp_ns: int = 0


@dataclass(frozen=True)
class Ended:
    """What became of an episode (see rl100_msgs/EpisodeEvent)."""

    episode_id: str
    outcome: Outcome
    labeller: str
    stamp_ns: int
    saved: bool
    path: str
    message: str


class Closing:
    """An ended episode that still has to be closed. ``save`` may run in any thread, once."""

    def __init__(self, writer: EpisodeWriter, tally: Tally, verdict: Verdict, broken: str) -> None:
        self._writer, self._tally = writer, tally
        self._verdict, self._broken = verdict, broken
        self.episode_id = writer.episode_id

    def save(self) -> Ended:
        """Finish, discard or give up the episode; never raises for a full or missing disc."""
        verdict, tally = self._verdict, self._tally
        if self._broken:
            self._writer.abandon()
            return self._ended(False, f"the episode is lost: {self._broken}")
        if verdict.outcome is Outcome.DISCARDED:
            self._writer.discard()
            return self._ended(False, "")
        try:
            info = self._writer.finish(
                verdict.outcome,
                verdict.labeller,
                tally.steps,
                tally.most(tally.versions),
                tally.most(tally.sources),
                verdict.stamp_ns,
            )
        except ContractError as error:
            return self._ended(False, f"the episode is lost: {error}")
        return self._ended(True, "" if info.complete else "incomplete: " + "; ".join(info.problems))

    def _ended(self, saved: bool, message: str) -> Ended:
        verdict, path = self._verdict, str(self._writer.final) if saved else ""
        return Ended(
            self.episode_id, verdict.outcome, verdict.labeller, verdict.stamp_ns, saved, path,
            message,
        )  # fmt: skip


class _Episode:
    """The episode that is being recorded."""

    def __init__(self, writer: EpisodeWriter, now: float) -> None:
        self.writer, self.tally = writer, Tally()
        self.started = self.last_data = now
        self.first_ns = 0
        self.verdict: Verdict | None = None
        self.labelled_at = 0.0
        self.over = False  # nothing more can come: close at the next poll
        self.broken = ""


class RecordingSession:
    """Records the episodes of one task into the folder ``data``. Not thread-safe."""

    def __init__(
        self,
        task: Task,
        data: Path,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._task, self._data, self._settings, self._clock = task, data, settings, clock
        self._world = WorldClock(BREAK_PERIODS * task.control.period_ns)
        self._arrived: dict[str, float] = {}
        self._received_ns = 0
        self._counter = 0
        self._episode: _Episode | None = None
        self._rated = {
            name: stream
            for name, stream in task.streams.items()
            if stream.rate_hz is not None and stream.role is not Role.EVENT
        }

    @property
    def running(self) -> str:
        """Name of the running episode, empty when there is none."""
        return self._episode.writer.episode_id if self._episode else ""

    @property
    def ending(self) -> bool:
        """Whether the running episode has its verdict and only waits for its last messages."""
        return self._episode is not None and self._episode.verdict is not None

    @property
    def now_ns(self) -> int:
        """Time in the clock of the sensors, ns."""
        return self._world.newest_ns if self._settings.lockstep else time.time_ns()

    def missing(self, publishers: Callable[[str], tuple[int, int]]) -> str:
        """One sentence on the first required topic that doesn't come; empty when all do.

        Args:
            publishers: for a stream, how many publishers are matched and how many there are.
        """
        now = self._clock()
        for name, stream in self._task.streams.items():
            if not stream.required or stream.role is Role.EVENT:
                continue
            matched, present = publishers(name)
            if present and not matched:
                return (
                    f"the publisher of {stream.topic} doesn't fit the task, which asks for "
                    f"{stream.type} with {stream.qos} QoS"
                )
            if not matched:
                return f"nothing publishes {stream.topic}: start the node that makes it"
            age = now - self._arrived.get(name, float("-inf"))
            if not self._settings.lockstep and age > self._settings.fresh_s:
                since = f"for {age:.1f} s" if name in self._arrived else "yet"
                return f"no message on {stream.topic} {since}: is its node stuck?"
        return ""

    def heard(self, stream: str) -> bool:
        """Whether a message of a stream has ever come."""
        return stream in self._arrived

    def start(self, episode_id: str = "", note: str = "", seed: int | None = None) -> str:
        """Start an episode and return its name.

        Raises:
            ContractError: one is running, the name is taken or bad, or the disc is nearly full.
        """
        if self._episode is not None:
            raise ContractError(f"episode {self.running} is running: end it first")
        self._check_disc()
        writer = self._open(episode_id or self._free_name(), note, seed)
        self._world.begin()
        self._episode = _Episode(writer, self._clock())
        return writer.episode_id

    def _open(self, name: str, note: str, seed: int | None) -> EpisodeWriter:
        return EpisodeWriter(self._data, name, self._task, note, seed)

    def _check_disc(self) -> None:
        folder = self._data
        while not folder.exists():
            folder = folder.parent
        free_mb = shutil.disk_usage(folder).free / 1e6
        if free_mb < self._settings.min_free_mb:
            raise ContractError(
                f"the disc of {self._data} has only {free_mb:.0f} MB left and recording needs "
                f"{self._settings.min_free_mb:.0f} MB: make room (parameter min_free_mb)"
            )

    def _free_name(self) -> str:
        while True:
            self._counter += 1
            stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
            name = f"{self._task.name}_{stamp}_{self._counter:03d}"
            if not (self._data / name).exists() and not (self._data / PARTIAL / name).exists():
                return name

    def receive(self, stream: str, data: bytes) -> None:
        """Take one serialized message of a stream; between episodes only its time is kept."""
        self._arrived[stream] = self._clock()
        try:
            stamp_ns = peek_stamp_ns(data)
        except ContractError:
            return  # too short to be a message of any recorded type
        spec = self._task.streams[stream]
        is_label = spec.topic == REWARD_TOPIC
        if self._settings.lockstep and not is_label and not self._belongs(stream, stamp_ns):
            return
        episode = self._episode
        if episode is None or episode.over:
            return
        self._write(episode, stream, data)
        if spec.role is not Role.EVENT:
            episode.last_data = self._clock()
            episode.first_ns = episode.first_ns or stamp_ns
        if spec.role is Role.ACTION and spec.type == EXECUTED_TYPE:
            episode.tally.add(data, stamp_ns)
        elif spec.type == CHAIN_TYPE:
            episode.tally.add_chain(data)
        if is_label:
            self.reward(data)

    def _belongs(self, stream: str, stamp_ns: int) -> bool:
        """Lockstep: whether a message is of the running episode's world."""
        if self._task.streams[stream].role is Role.EVENT:
            return not self._world.is_stale(stamp_ns)
        place = self._world.see(stream, stamp_ns)
        episode = self._episode
        if place is not Place.NEW_WORLD or episode is None:
            return place is Place.HERE
        if episode.verdict is not None:
            episode.over = True  # the next world has begun: nothing of this one can follow
            return False
        if episode.first_ns:
            self._begin_again(episode)
        return True

    def _begin_again(self, episode: _Episode) -> None:
        """The world was reset under a running episode: what came before is another story."""
        old = episode.writer
        old.discard()
        try:
            writer = self._open(old.episode_id, old.note, old.seed)
        except ContractError as error:
            self._break(episode, str(error))
        else:
            self._episode = _Episode(writer, self._clock())

    def _write(self, episode: _Episode, stream: str, data: bytes) -> None:
        # Strictly increasing, so that readers keep the order of arrival whatever the clock does.
        self._received_ns = max(time.time_ns(), self._received_ns + 1)
        try:
            episode.writer.write(stream, self._received_ns, data)
        except ContractError as error:
            self._break(episode, str(error))

    def _break(self, episode: _Episode, reason: str) -> None:
        """The episode cannot go on; the next ``poll`` says why."""
        episode.broken, episode.over = reason, True
        episode.verdict = episode.verdict or Verdict(Outcome.UNKNOWN, "recorder", self.now_ns)

    def reward(self, data: bytes) -> None:
        """Take one serialized RewardEvent: a verdict ends the running episode."""
        try:
            event: Any = ensure_type(REWARD_TYPE).deserialize_cdr(data, REWARD_TYPE)
            kind, labeller, stamp = int(event.kind), str(event.labeller), message_stamp_ns(event)
        except Exception:  # a damaged message must not end the recorder
            return
        if kind in _OUTCOMES:
            who = f"{labeller} (stop)" if kind == _STOP else labeller
            self.label(Verdict(_OUTCOMES[kind], who, stamp))

    def label(self, verdict: Verdict) -> bool:
        """End the running episode; False when none runs, it is labelled, or the label is stale."""
        episode, stamp_ns = self._episode, verdict.stamp_ns
        if episode is None or episode.verdict is not None:
            return False
        if self._settings.lockstep:
            if stamp_ns and self._world.is_stale(stamp_ns):
                return False  # of an earlier episode
            # A verdict may overtake the data of many ticks. Only a stamp far ahead is from a
            # labeller without simulation time, which can only mean "now".
            newest = self._world.newest_ns
            stamp_ns = stamp_ns if 0 < stamp_ns <= newest + _FAR_AHEAD_NS else newest
        stamp_ns = stamp_ns if stamp_ns > 0 else self.now_ns
        episode.verdict = Verdict(verdict.outcome, verdict.labeller, stamp_ns)
        episode.labelled_at = self._clock()
        return True

    def poll(self) -> Closing | None:
        """The episode to close now, or None. Call it after messages and some times a second."""
        episode = self._episode
        if episode is None:
            return None
        if episode.verdict is None:
            self._check_length(episode)
        verdict = episode.verdict
        if verdict is None:
            return None
        since = episode.labelled_at
        if self._settings.lockstep:  # the world stands still: what still comes belongs to it
            since = max(since, episode.last_data)
        waited = self._clock() - since
        if not (episode.over or waited > self._settings.grace_s or self._reached(verdict)):
            return None
        return self._hand_out(episode, verdict)

    def interrupt(self) -> Closing | None:
        """The running episode, to be closed at once because the recorder ends."""
        episode = self._episode
        if episode is None:
            return None
        return self._hand_out(
            episode, episode.verdict or Verdict(Outcome.UNKNOWN, "interrupted", self.now_ns)
        )

    def _hand_out(self, episode: _Episode, verdict: Verdict) -> Closing:
        self._episode = None
        return Closing(episode.writer, episode.tally, verdict, episode.broken)

    def _reached(self, verdict: Verdict) -> bool:
        """Whether every rated stream has arrived at the tick of the verdict, and every chain."""
        if verdict.outcome is Outcome.DISCARDED:
            return True
        assert self._episode is not None
        writer = self._episode.writer
        return self._episode.tally.chains_complete and all(
            writer.last_stamp_ns(name) >= verdict.stamp_ns - self._slack(stream)
            for name, stream in self._rated.items()
            if stream.required
        )

    @staticmethod
    def _slack(stream: Stream) -> int:
        # No action need follow the last observation.
        periods = 1.5 if stream.role is Role.ACTION else 0.5
        return round(periods * NANOSECONDS / (stream.rate_hz or 1.0))

    def _usual_length_s(self) -> float:
        length_s = 1.5 * self._task.episode.max_steps / self._task.control.rate_hz
        # The task's length is a policy's; a person at the keys is several times slower.
        return length_s if self._settings.lockstep else max(length_s, PERSON_S)

    def _check_length(self, episode: _Episode) -> None:
        now, settings = self._clock(), self._settings
        limit_s = settings.max_length_s or self._usual_length_s()
        if not settings.lockstep:
            length_s = now - episode.started
        elif episode.first_ns:
            length_s = (self._world.newest_ns - episode.first_ns) / NANOSECONDS
        else:
            length_s = 0.0
        if length_s > limit_s:
            self.label(Verdict(Outcome.UNKNOWN, "timeout"))
        elif now - episode.last_data > settings.stall_s:
            self.label(Verdict(Outcome.UNKNOWN, "no messages"))
