"""Lifecycle nodes that start by themselves, so that every launcher needs no choreography."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.timer import Timer

from rl100_contracts.errors import ContractError
from rl100_node.parameters import declare


class AutostartLifecycleNode(LifecycleNode):
    """A lifecycle node that configures and activates itself (parameter ``autostart``).

    Subclasses fill in ``setup`` (make publishers, subscriptions, load what is needed; may raise
    ContractError), ``start``, ``halt`` and ``teardown``. Entities made with ``advertise``,
    ``subscribe``, ``serve`` and ``every`` are destroyed on cleanup. Work only while ``active``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active = False
        self._problem: Exception | None = None
        self._undo: list[Callable[[], object]] = []
        self._autostart = declare(
            self, "autostart", True, "configure and activate the node at its start"
        )

    # --- for subclasses

    def setup(self) -> None:
        """Unconfigured -> inactive."""

    def start(self) -> None:
        """Inactive -> active."""

    def halt(self) -> None:
        """Active -> inactive, and before an active node ends."""

    def teardown(self) -> None:
        """Inactive -> unconfigured; entities are destroyed afterwards."""

    def advertise(self, kind: Any, topic: str, qos: QoSProfile | int) -> Publisher:
        """A publisher that lives until cleanup."""
        publisher = self.create_publisher(kind, topic, qos)
        self._undo.append(lambda: self.destroy_publisher(publisher))
        return publisher

    def subscribe(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile | int,
        *,
        raw: bool = False,
    ) -> None:
        """A subscription that lives until cleanup; ``raw``: the callback gets serialized bytes."""
        subscription = self.create_subscription(kind, topic, callback, qos, raw=raw)
        self._undo.append(lambda: self.destroy_subscription(subscription))

    def serve(
        self,
        kind: Any,
        name: str,
        callback: Callable[[Any, Any], Any],
        group: CallbackGroup | None = None,
    ) -> None:
        """A service that lives until cleanup.

        A callback that awaits needs a ``group`` of its own: while it waits, nothing else in its
        group runs.
        """
        service = self.create_service(kind, name, callback, callback_group=group)
        self._undo.append(lambda: self.destroy_service(service))

    def every(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """A timer on the steady (wall) clock that lives until cleanup."""
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self.create_timer(period_s, callback, clock=clock)
        self._undo.append(lambda: self.destroy_timer(timer))
        return timer

    def on_cleanup_do(self, action: Callable[[], object]) -> None:
        """Call ``action`` on cleanup (in the reverse order of the calls)."""
        self._undo.append(action)

    # --- start and end of the process, called by run_node

    def bring_up(self) -> None:
        """Configure and activate when ``autostart`` is set.

        Raises:
            ContractError: a mistake of the user; any other exception of ``setup`` or ``start``.
        """
        if not self._autostart:
            return
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() is not TransitionCallbackReturn.SUCCESS:
                raise self._problem or RuntimeError(f"{self.get_name()} could not be started")

    def shut_down(self) -> None:
        """Halt when active and clean up, before the process ends."""
        if self.active:
            self._attempt(self._halt)
        self._attempt(self._clean)

    # --- transitions

    def _halt(self) -> None:
        self.active = False
        self.halt()

    def _clean(self) -> None:
        self.teardown()
        while self._undo:
            self._undo.pop()()

    def _attempt(self, action: Callable[[], None]) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of transitions; here they are kept and logged.
        try:
            action()
        except ContractError as error:
            self._problem = error
            self.get_logger().error(str(error))
        except Exception as error:
            self._problem = error
            self.get_logger().error(traceback.format_exc())
        else:
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls ``setup``; what it made is removed again when it fails."""
        result = self._attempt(self.setup)
        if result is not TransitionCallbackReturn.SUCCESS:
            while self._undo:
                self._undo.pop()()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls ``start``."""
        result = self._attempt(self.start)
        self.active = result is TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls ``halt``."""
        return self._attempt(self._halt)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls ``teardown`` and destroys the entities."""
        return self._attempt(self._clean)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Halts when active, then cleans up."""
        if self.active:
            self._attempt(self._halt)
        return self._attempt(self._clean)
