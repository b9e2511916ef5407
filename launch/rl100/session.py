"""Runs episodes through the ROS graph: start, reset, wait for the verdict, next.

The session is a client like any other: it uses the public services and topics only, so that the
same code drives recording, rollouts and evaluation, in lockstep and in real time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from rl100.own_node import OwnNode
from rl100_contracts.decode import message_stamp_ns, stamp_to_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_control.tick import MODES
from rl100_msgs.msg import EpisodeEvent, PolicyStatus, RewardEvent, SimState
from rl100_msgs.srv import LoadBundle, ResetWorld, SetMode, StartEpisode, StopEpisode
from rl100_node.discovery import introduce, nodes_on_topic, wait_for_service

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# Nodes that have just started may not have found each other: then the first episode stands still.
FIRST_ATTEMPTS = 3
FIRST_PATIENCE_S = 20.0
STALLED_S = 4.0
WARM_UP_STEPS = 3
# Streams that the recorder does not wait for (a denoising chain) need time to find it as well.
DISCOVERY_S = 1.5


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode.

    Attributes:
        seed: of the start state.
        success: the labeller's verdict.
        steps: control steps from the first observation to the verdict.
        wall_s: wall time from the reset to the verdict, s.
        path: directory of the recorded episode; empty when nothing was recorded.
        message: what the recorder had to say.
    """

    seed: int
    success: bool
    steps: int
    wall_s: float
    path: str = ""
    message: str = ""


class NoVerdict(ContractError):
    """Nobody decided on an episode in time."""


class Session:
    """A client of the running system. Use as a context manager.

    Args:
        task: the contract of the running system.
        check: called while waiting; raises when the system is no longer healthy.
    """

    def __init__(self, task: Task, check: Callable[[], None] = lambda: None) -> None:
        self.task = task
        self._check = check
        self._own = OwnNode("rl100_session")
        self.node = self._own.node
        self._clients: dict[str, Client] = {}
        self._verdicts: list[RewardEvent] = []
        self._ended: dict[str, EpisodeEvent] = {}
        self._connected = False  # a verdict has come, so all nodes have found each other
        self._moved = time.monotonic()  # when the simulated world last went on
        self._steps = 0  # of the simulated world, in all
        self._next_check = 0.0
        self.policy_status: PolicyStatus | None = None
        self.node.create_subscription(RewardEvent, "/rl100/reward", self._on_reward, RELIABLE)
        self.node.create_subscription(EpisodeEvent, "/rl100/episode", self._on_episode, LATCHED)
        self.node.create_subscription(
            PolicyStatus, "/rl100/policy_status", self._on_policy_status, RELIABLE
        )
        self.node.create_subscription(SimState, "/sim/ground_truth", self._on_truth, RELIABLE)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def _on_reward(self, msg: RewardEvent) -> None:
        if msg.kind != RewardEvent.REWARD:
            self._verdicts.append(msg)

    def _on_episode(self, msg: EpisodeEvent) -> None:
        if msg.event == EpisodeEvent.ENDED:
            self._ended[msg.episode_id] = msg

    def _on_policy_status(self, msg: PolicyStatus) -> None:
        self.policy_status = msg

    def _on_truth(self, _: SimState) -> None:
        self._moved = time.monotonic()
        self._steps += 1

    def _spin_once(self, timeout_s: float) -> None:
        """Handle one message, or wait for one so long; looks after the system now and then."""
        self._own.spin_once(timeout_s)
        if time.monotonic() > self._next_check:
            self._check()
            self._next_check = time.monotonic() + 0.5

    def _spin(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until ``done`` or the time-out; returns whether it was done."""
        end = time.monotonic() + timeout_s
        while not done():
            self._spin_once(0.1)
            if time.monotonic() > end:
                self._check()
                return False
        return True

    def spin_until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Handle messages until ``done``.

        Raises:
            ContractError: it took longer than ``timeout_s``; the sentence says ``what`` is missing.
        """
        if not self._spin(done, timeout_s):
            raise ContractError(f"no {what} within {timeout_s:g} s")

    def spin_for(self, seconds: float) -> None:
        """Handle messages for some time."""
        self._spin(lambda: False, seconds)

    def client(self, kind: Any, name: str, timeout_s: float = 30.0) -> Client:
        """The client of a service, made on first use, when its node can answer it.

        Raises:
            ContractError: the service is not there.
        """
        if name not in self._clients:
            client = self.node.create_client(kind, name)
            if not wait_for_service(self.node, client, self._spin_once, timeout_s):
                self.node.destroy_client(client)
                raise ContractError(f"no service {name} within {timeout_s:g} s")
            self._clients[name] = client
        return self._clients[name]

    def introduce(self, topics: Sequence[str], timeout_s: float = 30.0) -> None:
        """Wait until the nodes on some topics know this session, so that it misses nothing.

        Raises:
            ContractError: one of them does not answer.
        """
        # Without a labeller or a recorder, what is missing is said where it is missed.
        self._spin(lambda: all(nodes_on_topic(self.node, topic) for topic in topics), 5.0)
        there = [topic for topic in topics if nodes_on_topic(self.node, topic)]
        missing = introduce(self.node, there, self._spin_once, timeout_s)
        if missing:
            raise ContractError(f"{missing} within {timeout_s:g} s")

    def call(self, kind: Any, name: str, request: Any, timeout_s: float = 30.0) -> Any:
        """Call a service and wait for its answer.

        Raises:
            ContractError: the service is not there or does not answer.
        """
        client = self.client(kind, name, timeout_s)
        if not client.service_is_ready():  # its node has left, or starts again
            self.spin_until(client.service_is_ready, timeout_s, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, timeout_s, f"answer of service {name}")
        return future.result()

    def set_mode(self, mode: str) -> None:
        """Put the gateway into a mode (a name of ``MODES``).

        Raises:
            ContractError: the gateway refuses.
        """
        answer = self.call(SetMode, "/rl100_gateway/set_mode", SetMode.Request(mode=MODES[mode]))
        if not answer.accepted:
            raise ContractError(f"the gateway refuses mode '{mode}': {answer.message}")

    def load_bundle(self, path: str) -> str:
        """Load a bundle into the running policy node; returns its version.

        Raises:
            ContractError: the policy node refuses it.
        """
        request = LoadBundle.Request(path=path)
        answer = self.call(LoadBundle, "/rl100_policy/load_bundle", request, timeout_s=60.0)
        if not answer.accepted:
            raise ContractError(answer.message)
        return str(answer.policy_version)

    def set_parameters(self, node: str, **values: Any) -> None:
        """Set parameters of a running node.

        Raises:
            ContractError: the node refuses one.
        """
        from rcl_interfaces.srv import SetParameters

        parameters = [Parameter(key, value=value) for key, value in values.items()]
        request = SetParameters.Request(parameters=[p.to_parameter_msg() for p in parameters])
        answer = self.call(SetParameters, f"/{node}/set_parameters", request)
        for key, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise ContractError(f"node {node} refuses parameter '{key}': {result.reason}")

    def run_episode(
        self, seed: int, *, record: bool = False, note: str = "", timeout_s: float = 120.0
    ) -> EpisodeResult:
        """Run one simulated episode to its verdict.

        Raises:
            ContractError: a service refuses, or no verdict comes.
        """
        for _ in range(FIRST_ATTEMPTS - 1):
            if self._connected:
                break
            try:
                return self._attempt(seed, record, note, min(timeout_s, FIRST_PATIENCE_S))
            except NoVerdict:
                continue
        return self._attempt(seed, record, note, timeout_s)

    def _attempt(self, seed: int, record: bool, note: str, timeout_s: float) -> EpisodeResult:
        if not self._connected:
            topics = ["/rl100/reward", "/sim/ground_truth"]
            self.introduce([*topics, "/rl100/episode"] if record else topics)
            self._warm_up(seed)
        if record and not self._connected:
            self.spin_for(DISCOVERY_S)
        self._verdicts.clear()
        episode_id = self._start_recording(note, seed) if record else ""
        started = time.monotonic()
        reset = self.call(ResetWorld, "/rl100_sim/reset", ResetWorld.Request(seed=seed))
        if not reset.success:
            raise ContractError(f"the simulator cannot reset: {reset.message}")
        first_ns = stamp_to_ns(reset.stamp)
        given = self._wait_verdict(first_ns, timeout_s)
        if given is None:
            if record:
                self._discard(episode_id)
            what = "verdict on the episode (is a labeller running?)"
            raise NoVerdict(f"no {what} within {time.monotonic() - started:.0f} s")
        self._connected = True
        wall_s = time.monotonic() - started
        steps = round((message_stamp_ns(given) - first_ns) / self.task.control.period_ns)
        ended = self._wait_saved(episode_id) if record else None
        return EpisodeResult(
            seed,
            given.kind == RewardEvent.SUCCESS,
            steps,
            wall_s,
            ended.path if ended else "",
            ended.message if ended else "",
        )

    def _wait_verdict(self, first_ns: int, timeout_s: float) -> RewardEvent | None:
        """The verdict on the episode that began at ``first_ns``; None: not in time.

        While nodes may not have found each other, a world that stands still is not waited for.
        """
        self._moved = time.monotonic()

        def verdict() -> RewardEvent | None:
            return next((v for v in self._verdicts if message_stamp_ns(v) >= first_ns), None)

        def over() -> bool:
            stands = not self._connected and time.monotonic() - self._moved > STALLED_S
            return stands or verdict() is not None

        self._spin(over, timeout_s)
        return verdict()

    def _warm_up(self, seed: int) -> None:
        """Reset until an episode goes on, and let it end; nothing of it is recorded.

        In lockstep the world stands still when the nodes among themselves have lost a message of
        the first tick, because they had not found each other. An episode that were still running
        when the recording of the next one starts would end that recording with its verdict.
        """
        for _ in range(FIRST_ATTEMPTS):
            reset = self.call(ResetWorld, "/rl100_sim/reset", ResetWorld.Request(seed=seed))
            goal = self._steps + WARM_UP_STEPS
            self._wait_verdict(stamp_to_ns(reset.stamp), FIRST_PATIENCE_S)
            if self._steps >= goal:
                return

    def _discard(self, episode_id: str) -> None:
        """End a recording that nobody has labelled, unless it has ended by itself."""
        if episode_id not in self._ended:
            outcome = EpisodeEvent.OUTCOME_DISCARDED
            request = StopEpisode.Request(outcome=outcome, labeller="session")
            self.call(StopEpisode, "/rl100/episode/stop", request)

    def _start_recording(self, note: str, seed: int) -> str:
        request = StartEpisode.Request(note=note, seed=seed)
        answer = self.call(StartEpisode, "/rl100/episode/start", request)
        if not answer.started:
            raise ContractError(f"the recorder cannot start: {answer.message}")
        return str(answer.episode_id)

    def _wait_saved(self, episode_id: str) -> EpisodeEvent:
        self.spin_until(
            lambda: episode_id in self._ended,
            30.0,
            f"end of episode {episode_id} from the recorder",
        )
        event = self._ended.pop(episode_id)
        if not event.path:
            raise ContractError(f"episode {episode_id} was not saved: {event.message}")
        return event

    def run_episodes(
        self,
        seeds: Iterable[int],
        *,
        record: bool = False,
        on_result: Callable[[EpisodeResult], None] = lambda _: None,
    ) -> list[EpisodeResult]:
        """Run an episode for each seed; ``on_result`` is called after each."""
        results = []
        for seed in seeds:
            result = self.run_episode(seed, record=record)
            results.append(result)
            on_result(result)
        return results
