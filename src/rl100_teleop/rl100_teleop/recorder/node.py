"""The episode recorder as a ROS node, see ``session`` for what it decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future as Work
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future

from rl100_contracts.decode import split_ns
from rl100_contracts.episode import Outcome, unfinished_episodes
from rl100_contracts.errors import ContractError
from rl100_contracts.streams import Role
from rl100_msgs.msg import EpisodeEvent
from rl100_msgs.srv import StartEpisode, StopEpisode
from rl100_node.diagnostics import OK, WARN, Diagnostics
from rl100_node.executors import call_soon
from rl100_node.parameters import declare, declare_lockstep, declare_task
from rl100_node.qos import command_qos, episode_qos, qos_for
from rl100_teleop.recorder.publishers import Publishers
from rl100_teleop.recorder.session import (
    REWARD_TOPIC,
    REWARD_TYPE,
    Closing,
    Ended,
    RecordingSession,
    Settings,
    Verdict,
)

TICK_S = 0.02

_TO_EVENT = {
    Outcome.UNKNOWN: EpisodeEvent.OUTCOME_UNKNOWN,
    Outcome.SUCCESS: EpisodeEvent.OUTCOME_SUCCESS,
    Outcome.FAILURE: EpisodeEvent.OUTCOME_FAILURE,
    Outcome.DISCARDED: EpisodeEvent.OUTCOME_DISCARDED,
}
_FROM_EVENT = {value: key for key, value in _TO_EVENT.items()}


def _message_class(kind: str) -> Any:
    package, _, name = kind.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise ContractError(
            f"message type '{kind}' cannot be imported: build and source the workspace that "
            "defines it"
        ) from None


class RecorderNode(Node):
    """Writes one bag per episode: services ``/rl100/episode/start`` and ``/rl100/episode/stop``."""

    def __init__(self) -> None:
        super().__init__("rl100_recorder")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        self._data = Path(
            declare(self, "data", "data", "folder of the episodes, made when missing")
        ).expanduser()
        self._gate_timeout_s = declare(
            self, "gate_timeout_s", 5.0, "how long a start waits for topics, s", low=0, high=600
        )
        self._depth = declare(
            self, "queue_depth", 1000, "messages of a topic that may wait", low=1, high=100_000
        )
        settings = self._settings()
        self._make_folder()
        self._session = RecordingSession(self._task, self._data, settings)
        self.awaits = True
        self._waiting: dict[str, list[Future]] = {}
        self._ticks: list[Future] = []
        self._saving: list[Work[Ended]] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="episode")
        self._events = self.create_publisher(EpisodeEvent, "/rl100/episode", episode_qos())
        self._streams = self._subscribe()
        topics = {stream.topic: name for name, stream in self._task.streams.items()}
        heard = self._session.heard
        self._senders = Publishers(self, [*topics], lambda topic: heard(topics[topic]))
        self._diagnostics = Diagnostics(self)
        # Services wait inside their callbacks; the streams must go on meanwhile.
        group = ReentrantCallbackGroup()
        start, stop = "/rl100/episode/start", "/rl100/episode/stop"
        self.create_service(StartEpisode, start, self._on_start, callback_group=group)
        self.create_service(StopEpisode, stop, self._on_stop, callback_group=group)
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._greet()

    def _make_folder(self) -> None:
        try:
            self._data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ContractError(
                f"{self._data}: the folder of the episodes cannot be made ({error.strerror})"
            ) from None

    def _settings(self) -> Settings:
        value: Callable[..., float] = partial(declare, self)
        length = "longest episode, s; 0: 1.5 times the task's, in real time at least 60 s"
        return Settings(
            lockstep=self._lockstep,
            fresh_s=value("fresh_s", 0.5, "a topic without a message for longer blocks a start, s"),
            # Only waited for while data is missing: on a busy machine it comes late, and in
            # lockstep it is sure to come.
            grace_s=value(
                "grace_s",
                5.0 if self._lockstep else 2.0,
                "how long an ended episode waits for its last data, s",
            ),
            max_length_s=value("max_length_s", 0.0, length),
            stall_s=value("stall_s", 60.0, "an episode without data for longer is ended, s"),
            min_free_mb=value("min_free_mb", 200.0, "free space that a start needs, MB"),
        )

    def _subscribe(self) -> dict[str, Subscription]:
        subscriptions = {}
        for name, stream in self._task.streams.items():
            qos = qos_for(stream, self._lockstep)
            callback = partial(self._on_message, name)
            subscriptions[name] = self._raw(stream.type, stream.topic, callback, qos)
        if REWARD_TOPIC not in (stream.topic for stream in self._task.streams.values()):
            self._raw(REWARD_TYPE, REWARD_TOPIC, self._on_reward, command_qos())
        return subscriptions

    def _raw(
        self, kind: str, topic: str, callback: Callable[[bytes], None], qos: QoSProfile
    ) -> Subscription:
        reliable = qos.reliability is ReliabilityPolicy.RELIABLE
        deep = QoSProfile(
            depth=self._depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        return self.create_subscription(_message_class(kind), topic, callback, deep, raw=True)

    def _greet(self) -> None:
        for lost in unfinished_episodes(self._data):
            self.get_logger().warning(
                f"episode {lost.name} was cut off by a crash and is lost; what was written of it "
                f"is in {lost}: delete the folder when you don't need it"
            )
        self._diagnostics.report(OK, f"ready to record into {self._data}")

    # --- messages

    def _on_message(self, stream: str, data: bytes) -> None:
        self._session.receive(stream, data)
        self._close_ended()

    def _on_reward(self, data: bytes) -> None:
        self._session.reward(data)
        self._close_ended()

    def _tick(self) -> None:
        self._close_ended()
        for work in [work for work in self._saving if work.done()]:
            self._saving.remove(work)
            self._announce_end(work.result())
        ticks, self._ticks = self._ticks, []
        for future in ticks:
            future.set_result(None)

    def _close_ended(self) -> None:
        closing = self._session.poll()
        if closing is not None:
            self._save(closing)

    def _save(self, closing: Closing) -> None:
        work = self._worker.submit(closing.save)
        self._saving.append(work)
        # The end is announced in the node's own thread, at once.
        work.add_done_callback(lambda _: call_soon(self, self._tick))

    # --- services

    def _next_tick(self) -> Future:
        future = Future()
        self._ticks.append(future)
        return future

    def _publisher_counts(self, stream: str) -> tuple[int, int]:
        topic = self._task.streams[stream].topic
        return self._streams[stream].get_publisher_count(), self.count_publishers(topic)

    async def _on_start(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        deadline = time.monotonic() + self._gate_timeout_s
        while problem := self._not_ready():
            # A running episode won't end by waiting, unless it is ending already.
            if time.monotonic() > deadline or (self._session.running and not self._session.ending):
                return self._refuse(response, problem)
            await self._next_tick()
        # In real time the messages that come all the time have shown it.
        while self._lockstep and (stranger := self._senders.stranger()):
            if time.monotonic() > deadline:  # it may be a program without services
                self.get_logger().warning(f"{stranger} does not say whether it knows the recorder")
                break
            await self._next_tick()
        try:
            seed = None if request.seed < 0 else int(request.seed)
            name = self._session.start(request.episode_id, request.note, seed)
        except ContractError as error:
            return self._refuse(response, str(error))
        self._publish(EpisodeEvent.STARTED, name, self._session.now_ns)
        response.message = self._doubles()
        self._diagnostics.report(OK, f"recording {name}")
        response.started, response.episode_id = True, name
        return response

    def _doubles(self) -> str:
        """One sentence when two systems seem to run at once; their messages would be mixed."""
        for name, stream in self._task.streams.items():
            count = self._publisher_counts(name)[0]
            if stream.role in (Role.ACTION, Role.CLOUD) and count > 1:
                sentence = (
                    f"{count} nodes publish {stream.topic}: does another system run in the same "
                    "ROS_DOMAIN_ID?"
                )
                self.get_logger().warning(sentence)
                return sentence
        return ""

    def _not_ready(self) -> str:
        if self._session.running:
            return f"episode {self._session.running} is running: end it first"
        return self._session.missing(self._publisher_counts)

    def _refuse(self, response: StartEpisode.Response, problem: str) -> StartEpisode.Response:
        response.started, response.message = False, problem
        self.get_logger().warning(f"no episode was started: {problem}")
        return response

    async def _on_stop(
        self, request: StopEpisode.Request, response: StopEpisode.Response
    ) -> StopEpisode.Response:
        name = response.episode_id = self._session.running
        if not name or request.outcome not in _FROM_EVENT:
            response.message = (
                f"outcome {request.outcome} is unknown: use one of EpisodeEvent.OUTCOME_*"
                if name
                else "no episode is running"
            )
            return response
        self._session.label(Verdict(_FROM_EVENT[request.outcome], request.labeller or "service"))
        future = Future()
        self._waiting.setdefault(name, []).append(future)
        self._close_ended()
        ended: Ended = await future
        response.stopped = ended.saved or ended.outcome is Outcome.DISCARDED
        response.path, response.message = ended.path, ended.message
        return response

    # --- events

    def _announce_end(self, ended: Ended) -> None:
        self._publish(EpisodeEvent.ENDED, ended.episode_id, ended.stamp_ns, ended)
        what = f"{ended.episode_id}: {ended.outcome.value} ({ended.labeller})"
        level = WARN if ended.message else OK
        self._diagnostics.report(level, f"{what} {ended.message}".rstrip())
        for future in self._waiting.pop(ended.episode_id, []):
            future.set_result(ended)

    def _publish(self, kind: int, name: str, stamp_ns: int, ended: Ended | None = None) -> None:
        event = EpisodeEvent(event=kind, episode_id=name)
        event.header.stamp.sec, event.header.stamp.nanosec = split_ns(stamp_ns)
        event.task, event.task_hash = self._task.name, self._task.hash
        if ended is not None:
            event.outcome, event.labeller = _TO_EVENT[ended.outcome], ended.labeller
            event.saved, event.path, event.message = ended.saved, ended.path, ended.message
        self._events.publish(event)

    def shut_down(self) -> None:
        """Keep a running episode and finish those that are being saved."""
        closing = self._session.interrupt()
        if closing is not None:
            self._saving.append(self._worker.submit(closing.save))
            self.get_logger().warning(
                f"interrupted: what was recorded of {closing.episode_id} is kept with the verdict "
                "that it had (unknown if none)"
            )
        self._worker.shutdown(wait=True)
        for work in self._saving:
            self._announce_end(work.result())
        self._events.wait_for_all_acked(Duration(seconds=1))
