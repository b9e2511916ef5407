"""A node inside a command that asks the running nodes something, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rl100_contracts.errors import ContractError

# Discovery on a loaded machine; a node that runs is found in a fraction of it.
PATIENCE_S = 10.0


class Client:
    """Asks one of the running nodes. Use as a context manager.

    Args:
        asked: who should be running, for the sentence that says that it does not seem to.
    """

    def __init__(self, asked: str) -> None:
        self._asked = asked

    def __enter__(self) -> Client:
        from rl100.own_node import OwnNode

        self._own = OwnNode("rl100_operator")
        self.node = self._own.node
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def spin(self, seconds: float) -> None:
        """Handle one message, or wait for one so long."""
        self._own.spin_once(seconds)

    def wait(
        self,
        done: Callable[[], bool],
        missing: str,
        patience_s: float = PATIENCE_S,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Handle messages until ``done``.

        Raises:
            ContractError: not within ``patience_s``, or whoever is waited for is ``gone``.
        """
        end = time.monotonic() + patience_s
        while not done():
            if time.monotonic() > end:
                raise ContractError(self._sentence(missing, patience_s))
            if gone():
                raise ContractError(f"{missing}: {self._asked} has ended")
            self.spin(0.1)

    def _sentence(self, missing: str, patience_s: float) -> str:
        return (
            f"{missing} within {patience_s:g} s: is {self._asked} running, on this ROS_DOMAIN_ID?"
        )

    def call(self, kind: Any, name: str, request: Any, patience_s: float = PATIENCE_S) -> Any:
        """The answer of a service that needs at most ``patience_s`` for it.

        Raises:
            ContractError: nobody offers the service, or no answer came.
        """
        from rl100_node.discovery import wait_for_service

        client = self.node.create_client(kind, name)
        if not wait_for_service(self.node, client, self.spin, PATIENCE_S):
            raise ContractError(self._sentence(f"no service {name}", PATIENCE_S))
        future = client.call_async(request)
        missing = f"no answer from {name}"
        self.wait(future.done, missing, patience_s, lambda: not client.service_is_ready())
        return future.result()

    def latched(self, kind: Any, topic: str) -> list[Any]:
        """A list that gets the messages of a topic of which the last one is kept."""
        from rl100_node.qos import latched_qos

        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, latched_qos())
        return heard
