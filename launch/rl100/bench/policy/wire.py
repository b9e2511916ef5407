"""The robot's side of the wire: publishes observations, follows commands, stamps what comes back.

All times are of the system clock, ns. Sending is stamped before the call that publishes the last
message of an observation, receiving by DDS when the message has arrived here (so the harness's own
Python does not count), publishing by DDS in the process that publishes.
"""

from __future__ import annotations

import array
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.client import Client
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState, PointCloud2, PointField

from rl100.bench.policy.bundles import random_clouds
from rl100.own_node import OwnNode
from rl100_contracts.decode import message_stamp_ns, split_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import observed_streams
from rl100_contracts.streams import JOINT_STATE
from rl100_contracts.task import NANOSECONDS, Task
from rl100_msgs.msg import ActionChunk, ExecutedAction, GatewayStatus, PolicyStatus, RewardEvent
from rl100_msgs.srv import LoadBundle, SetMode
from rl100_node.discovery import wait_for_service
from rl100_node.messages import message_class
from rl100_node.qos import command_qos, latched_qos, qos_for

SERVICE_TIMEOUT_S = 60.0
LOAD_BUNDLE, SET_MODE = "/rl100_policy/load_bundle", "/rl100_gateway/set_mode"
SERVICES = {LOAD_BUNDLE: LoadBundle, SET_MODE: SetMode}
START_TIMEOUT_S = 180.0  # a large bundle is hashed, loaded and warmed up first
# Endpoints that we have found may not have found us yet.
SETTLE_S = 1.0
CLOUDS = 16
SHORTEST = 0.8


@dataclass(frozen=True)
class SeenChunk:
    """A chunk: observation that it came from, when it left the policy, when it was here, ns."""

    sequence: int
    observation_ns: int
    version: str
    published_ns: int
    received_ns: int


@dataclass(frozen=True)
class SeenTick:
    """What the gateway did in one tick; ``stamp_ns`` is also its command's."""

    stamp_ns: int
    sequence: int
    version: str
    mode: int
    hold: bool
    reason: str
    received_ns: int


class Wire:
    """A robot and its operator as one ROS node. Use as a context manager; not thread-safe.

    Args:
        task: the contract.
        domain: ROS domain of the running nodes.
        check: called now and then; raises when the system is no longer whole.
    """

    def __init__(self, task: Task, domain: int, check: Callable[[], None] = lambda: None) -> None:
        self.task = task
        self.sent_ns: dict[int, int] = {}  # stamp of the observation -> when it was sent
        self.chunks: list[SeenChunk] = []
        self.ticks: list[SeenTick] = []
        self.commands_ns: dict[int, int] = {}  # stamp of the command -> when it was received
        self.policy_status: PolicyStatus | None = None
        self.gateway_status: GatewayStatus | None = None
        self.period_s = task.control.period_ns / NANOSECONDS
        self._check, self._check_at = check, 0.0
        self._own = OwnNode("rl100_bench", domain)
        self._node = self._own.node
        self._due = time.monotonic()
        self._position = np.zeros(task.action.dim)
        self._publishers: list[tuple[str, Publisher]] = []
        self._clients: dict[str, Client] = {}  # made in ``connect``: finding a server takes time
        self._advertise()
        self._subscribe()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()
        gc.unfreeze()

    # --- endpoints

    def _advertise(self) -> None:
        task = self.task
        cloud = task.observation.frame_stream
        # The cloud last: it completes the observation.
        for name in sorted(observed_streams(task), key=lambda stream: stream == cloud):
            stream = task.streams[name]
            publisher = self._node.create_publisher(
                message_class(stream.type), stream.topic, qos_for(stream, False)
            )
            self._publishers.append((name, publisher))
        self._reward = self._node.create_publisher(RewardEvent, "/rl100/reward", command_qos())
        rng = np.random.default_rng(0)
        count = task.observation.num_points
        fields = [
            PointField(name=axis, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, axis in enumerate("xyz")
        ]
        self._clouds = []
        for points in random_clouds(task, rng, CLOUDS):
            message = PointCloud2(height=1, width=count, point_step=12, row_step=12 * count)
            message.header.frame_id = task.base_frame
            message.fields, message.is_dense = fields, True
            message.data = array.array("B", points.astype("<f4").tobytes())
            self._clouds.append(message)

    def _subscribe(self) -> None:
        def listen(kind: Any, topic: str, callback: Callable[..., None], latched: bool) -> None:
            qos = latched_qos() if latched else command_qos()
            self._node.create_subscription(kind, topic, callback, qos)

        action = self.task.action
        executed = self.task.streams[self.task.action_stream].topic
        listen(ActionChunk, "/rl100/action_chunk", self._on_chunk, False)
        listen(message_class(action.command_type), action.command, self._on_command, False)
        listen(ExecutedAction, executed, self._on_executed, False)
        listen(PolicyStatus, "/rl100/policy_status", self._on_policy_status, True)
        listen(GatewayStatus, "/rl100/gateway_status", self._on_gateway_status, True)

    def _on_chunk(self, msg: ActionChunk, info: dict[str, int]) -> None:
        self.chunks.append(
            SeenChunk(
                int(msg.sequence),
                message_stamp_ns(msg),
                str(msg.policy_version),
                info["source_timestamp"],
                info["received_timestamp"],
            )
        )

    def _on_command(self, msg: PoseStamped, info: dict[str, int]) -> None:
        self.commands_ns[message_stamp_ns(msg)] = info["received_timestamp"]
        # A perfect robot: it is where it is told to be.
        position = msg.pose.position
        self._position = np.array([getattr(position, axis) for axis in self.task.action.names])

    def _on_executed(self, msg: ExecutedAction, info: dict[str, int]) -> None:
        self.ticks.append(
            SeenTick(
                message_stamp_ns(msg),
                int(msg.chunk_sequence),
                str(msg.policy_version),
                int(msg.mode),
                bool(msg.hold),
                str(msg.reason),
                info["received_timestamp"],
            )
        )

    def _on_policy_status(self, msg: PolicyStatus) -> None:
        self.policy_status = msg

    def _on_gateway_status(self, msg: GatewayStatus) -> None:
        self.gateway_status = msg

    # --- the loop

    def _publish(self) -> None:
        stamp_ns = time.time_ns()
        for name, publisher in self._publishers:
            message = self._message(name, stamp_ns)
            message.header.stamp.sec, message.header.stamp.nanosec = split_ns(stamp_ns)
            self.sent_ns[stamp_ns] = time.time_ns()  # in the end that of the last message
            publisher.publish(message)

    def _message(self, name: str, stamp_ns: int) -> Any:
        if name == self.task.observation.frame_stream:
            return self._clouds[len(self.sent_ns) % CLOUDS]
        if self.task.streams[name].type == JOINT_STATE:
            turn = 0.1 * np.sin(stamp_ns * 1e-9 + np.arange(len(self.task.joint_names)))
            return JointState(name=self.task.joint_names, position=turn.tolist())
        pose = PoseStamped()
        pose.header.frame_id = self.task.base_frame
        for axis, value in zip(self.task.action.names, self._position.tolist(), strict=True):
            setattr(pose.pose.position, axis, value)
        return pose

    def run(
        self, seconds: float, done: Callable[[], object] = lambda: False, *, stretch: float = 1.0
    ) -> bool:
        """Publish an observation each control period (times ``stretch``) and take what comes back.

        Returns:
            whether ``done`` held before the time was over.
        """
        end = time.monotonic() + seconds
        period_s = self.period_s * stretch
        while not done():
            now = time.monotonic()
            if now >= end:
                return False
            if now >= self._due:
                self._publish()
                # A harness that was away does not catch up, as that would be another rate: two
                # observations within less than this of a period are one decision to the policy.
                self._due = max(self._due + period_s, now + SHORTEST * period_s)
                if now >= self._check_at:
                    self._check()
                    self._check_at = now + 1.0
                    # The records grow: the garbage collector must not go through them again and
                    # again, or observations come late in a long run.
                    gc.freeze()
            left = min(self._due, end) - time.monotonic()
            if left > 0:
                self._own.spin_once(left)
        return True

    def expect(self, done: Callable[[], object], what: str, seconds: float = 30.0) -> None:
        """Run until ``done``.

        Raises:
            ContractError: it did not come.
        """
        if not self.run(seconds, done):
            raise ContractError(f"the benchmark waited {seconds:g} s in vain for {what}")

    def connect(self, version: str) -> None:
        """Wait until the policy runs ``version`` and everybody knows everybody.

        Raises:
            ContractError: a node does not come up.
        """

        def up() -> bool:
            found = all(p.get_subscription_count() > 0 for _, p in self._publishers)
            status = self.policy_status
            policy = status is not None and status.policy_version == version
            return found and policy and self.gateway_status is not None

        self.expect(up, "the nodes to come up", START_TIMEOUT_S)
        for name, kind in SERVICES.items():
            client = self._node.create_client(kind, name)
            if not wait_for_service(self._node, client, self.run, SERVICE_TIMEOUT_S):
                raise ContractError(f"the benchmark waited in vain for the service {name}")
            self._clients[name] = client
        self.run(SETTLE_S)
        self.expect(lambda: bool(self.chunks), "a first chunk of the policy")

    def forget(self) -> None:
        """Start the records afresh."""
        self.sent_ns.clear()
        self.chunks.clear()
        self.ticks.clear()
        self.commands_ns.clear()

    # --- the operator

    def call(self, name: str, **fields: object) -> Any:
        """Call one of ``SERVICES`` while the loop goes on; returns its answer.

        Raises:
            ContractError: no answer.
        """
        future = self._clients[name].call_async(SERVICES[name].Request(**fields))
        self.expect(future.done, f"the answer of {name}", SERVICE_TIMEOUT_S)
        return future.result()

    def load_bundle(self, path: str) -> None:
        """Swap the bundle; raises ContractError when it is refused."""
        answer = self.call(LOAD_BUNDLE, path=path)
        if not answer.accepted:
            raise ContractError(f"the policy node refused a bundle: {answer.message}")

    def press_stop(self) -> int:
        """Press stop, as the reward keyboard does; returns when, ns."""
        event = RewardEvent(kind=RewardEvent.STOP, labeller="bench")
        now_ns = time.time_ns()
        event.header.stamp.sec, event.header.stamp.nanosec = split_ns(now_ns)
        self._reward.publish(event)
        return now_ns

    def set_mode(self, mode: int, *, clear_stop: bool = False) -> None:
        """Ask the gateway for a mode; raises ContractError when it refuses."""
        answer = self.call(SET_MODE, mode=mode, clear_stop=clear_stop)
        if not answer.accepted:
            raise ContractError(f"the gateway refused mode {mode}: {answer.message}")
