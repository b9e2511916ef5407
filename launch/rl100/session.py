"""Runs episodes through the ROS graph: start, reset, wait for the verdict, next.

The session is a client like any other: it uses the public services and topics only, so that the
same code drives recording, rollouts and evaluation, in lockstep and in real time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from rl100_contracts.decode import message_stamp_ns, stamp_to_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_msgs.msg import EpisodeEvent, PolicyStatus, RewardEvent
from rl100_msgs.srv import LoadBundle, ResetWorld, SetMode, StartEpisode, StopEpisode

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# Nodes that have just started may not have found each other: then nobody sees the first episode.
FIRST_ATTEMPTS = 3
FIRST_PATIENCE_S = 20.0
MODES = {"idle": 0, "teleop": 1, "policy": 2, "takeover": 3, "stopped": 4}


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
        self._context = Context()
        # The session's owner handles Ctrl-C; rclpy's handler would only stop the waiting.
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("rl100_session", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Client] = {}
        self._verdicts: list[RewardEvent] = []
        self._ended: dict[str, EpisodeEvent] = {}
        self._connected = False  # a verdict has come, so all nodes have found each other
        self.policy_status: PolicyStatus | None = None
        self.node.create_subscription(RewardEvent, "/rl100/reward", self._on_reward, RELIABLE)
        self.node.create_subscription(EpisodeEvent, "/rl100/episode", self._on_episode, LATCHED)
        self.node.create_subscription(
            PolicyStatus, "/rl100/policy_status", self._on_policy_status, RELIABLE
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _on_reward(self, msg: RewardEvent) -> None:
        if msg.kind != RewardEvent.REWARD:
            self._verdicts.append(msg)

    def _on_episode(self, msg: EpisodeEvent) -> None:
        if msg.event == EpisodeEvent.ENDED:
            self._ended[msg.episode_id] = msg

    def _on_policy_status(self, msg: PolicyStatus) -> None:
        self.policy_status = msg

    def _spin(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until ``done`` or the time-out; returns whether it was done."""
        end = time.monotonic() + timeout_s
        next_check = time.monotonic() + 0.5
        while not done():
            self._executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
            if now > next_check:
                self._check()
                next_check = now + 0.5
            if now > end:
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

    def client(self, kind: Any, name: str) -> Client:
        """The client of a service, made on first use."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        return self._clients[name]

    def call(self, kind: Any, name: str, request: Any, timeout_s: float = 30.0) -> Any:
        """Call a service and wait for its answer.

        Raises:
            ContractError: the service is not there or does not answer.
        """
        client = self.client(kind, name)
        if not client.service_is_ready():
            self.spin_until(client.service_is_ready, timeout_s, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, timeout_s, f"answer of service {name}")
        return future.result()

    def set_mode(self, mode: str) -> None:
        """Put the gateway into a mode (idle, teleop, policy, takeover, stopped).

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
        self._verdicts.clear()
        episode_id = self._start_recording(note, seed) if record else ""
        started = time.monotonic()
        reset = self.call(ResetWorld, "/rl100_sim/reset", ResetWorld.Request(seed=seed))
        if not reset.success:
            raise ContractError(f"the simulator cannot reset: {reset.message}")
        first_ns = stamp_to_ns(reset.stamp)

        def verdict() -> RewardEvent | None:
            return next((v for v in self._verdicts if message_stamp_ns(v) >= first_ns), None)

        what = "verdict on the episode (is a labeller running?)"
        if not self._spin(lambda: verdict() is not None, timeout_s):
            if record:
                self._discard(episode_id)
            raise NoVerdict(f"no {what} within {timeout_s:g} s")
        self._connected = True
        given = verdict()
        assert given is not None
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
