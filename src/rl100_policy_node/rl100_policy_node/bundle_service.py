"""The service ``load_bundle``, in threads of its own: its callback waits while a bundle loads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor

from rl100_contracts.errors import ContractError
from rl100_msgs.srv import LoadBundle
from rl100_policy_node.loading import BundleLoader
from rl100_policy_node.runtime import PolicyRuntime

NAME = "rl100_policy_bundles"
SERVICE = "/rl100_policy/load_bundle"
REFUSAL_SHOWN_S = 10.0

Callback = Callable[[LoadBundle.Request, LoadBundle.Response], LoadBundle.Response]


class LastRefusal:
    """Why the last bundle was refused, as long as someone should see it. From any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._sentence, self._until = "", 0.0

    def note(self, sentence: str) -> None:
        """Say it for a while; empty: a bundle was accepted."""
        self._until = self._monotonic() + REFUSAL_SHOWN_S
        self._sentence = sentence

    def __str__(self) -> str:
        return self._sentence if self._monotonic() < self._until else ""


class BundleService:
    """Serves ``load_bundle`` from a node beside the policy node, until ``close``.

    The policy node's executor has the least overhead of rclpy's, but no callbacks that wait. Here
    two may: while one loads a bundle, another can go back to the previous one.
    """

    def __init__(self, callback: Callback) -> None:
        # Remappings of the policy node, its name above all, are not meant for this one.
        self._node = rclpy.create_node(NAME, use_global_arguments=False)
        self._node.create_service(
            LoadBundle, SERVICE, callback, callback_group=ReentrantCallbackGroup()
        )
        self._executor = MultiThreadedExecutor(num_threads=2)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True, name="bundles")
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.5)

    def wait_for(self, loader: BundleLoader, load: Callable[[], PolicyRuntime]) -> PolicyRuntime:
        """What ``load`` gives, in a thread of ``loader``; for use in the callback.

        Raises:
            ContractError: the bundle does not fit, another one is being loaded, or the node ends.
        """
        results: queue.Queue[PolicyRuntime | ContractError] = queue.Queue()
        loader.begin(load, results.put)
        while not self._closing.is_set():
            try:
                result = results.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(result, ContractError):
                raise result
            return result
        raise ContractError("the policy node is going down")

    def close(self) -> None:
        """Leave the graph; a callback that waits ends."""
        self._closing.set()
        self._executor.wake()
        self._thread.join(timeout=2.0)
        self._executor.shutdown(timeout_sec=2.0)
        self._node.destroy_node()
