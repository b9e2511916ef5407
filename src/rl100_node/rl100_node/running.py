"""Running one node as a process: clean end on SIGINT and SIGTERM, one sentence on a mistake.

Exit status: 0 after SIGINT or SIGTERM, 2 after a mistake that the user can mend, 1 with a
traceback after a bug.
"""

from __future__ import annotations

import gc
import importlib
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from rl100_contracts.errors import ContractError, fail

if TYPE_CHECKING:
    from rclpy.node import Node


class _Stop:
    """Turns signals into a flag and a wake-up call.

    Python runs its signal handlers only between two bytecodes, and a spinning node sits in a C
    wait. The interpreter writes to ``set_wakeup_fd`` at once, so a thread that reads the other end
    can wake the executor. rclpy's own handlers would close the context, and then a node could not
    say anything more on its way out.
    """

    def __init__(self) -> None:
        self.requested = False
        self._running = False
        self._wake: Callable[[], object] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        # `rl100 up` holds Ctrl-C back while Python starts and imports.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def _handle(self, number: int, _frame: object) -> None:
        self.requested = True
        if not self._running:
            raise SystemExit(0)

    def watch(self, wake: Callable[[], object]) -> None:
        """From now on a signal calls ``wake`` (in another thread) instead of exiting at once."""
        self._wake = wake
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name="signals").start()
        self._running = True

    def _listen(self) -> None:
        while numbers := self._reader.recv(16):
            if self._wake and not {signal.SIGINT, signal.SIGTERM}.isdisjoint(numbers):
                self.requested = True
                self._wake()

    def ignore(self) -> None:
        """Ignore further signals: the node is on its way out."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._wake = None


def _load(factory: str | Callable[[], Node]) -> Callable[[], Node]:
    if not isinstance(factory, str):
        return factory
    module, _, name = factory.partition(":")
    loaded: Callable[[], Node] = getattr(importlib.import_module(module), name)
    return loaded


def _init_ros() -> Any:
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise ContractError(
            f"ROS 2 cannot be imported ({error}): source a ROS 2 installation or start through "
            "./rl100"
        ) from None
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        # rclpy has several private exception types for bad --ros-args.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ContractError(f"the ROS arguments cannot be used: {reason}") from None
    return rclpy


def _nothing() -> None:
    pass


def _keep_what_is_there() -> None:
    """Spare later garbage collections the modules: 50,000 objects, a pause of 50 ms and more."""
    gc.collect()
    gc.freeze()


def _spin(rclpy: Any, factory: str | Callable[[], Node], stop: _Stop) -> None:
    from rl100_node.executors import call_soon, make_executor, raise_failure

    node: Any = None
    try:
        node = _load(factory)()
        executor = make_executor(awaits=getattr(node, "awaits", False))
        executor.add_node(node)
        # A task that does nothing: running it makes spin_once return.
        stop.watch(lambda: call_soon(node, _nothing))
        if hasattr(node, "bring_up"):
            node.bring_up()
        _keep_what_is_there()
        while rclpy.ok() and not stop.requested:
            executor.spin_once(timeout_sec=1.0)
            raise_failure(node)
    finally:
        stop.ignore()
        if node is not None:
            if hasattr(node, "shut_down"):
                node.shut_down()
            node.destroy_node()


def run_node(factory: str | Callable[[], Node]) -> NoReturn:
    """Make a node, spin it until SIGINT or SIGTERM, and leave the process.

    Args:
        factory: a callable that makes the node, or ``"package.module:Class"``, which is imported
            after the signal handlers are in place.

    A node whose callbacks await has an attribute ``awaits``, True. It may have ``bring_up()``
    (called before spinning; may raise ContractError) and ``shut_down()`` (called after spinning,
    always; publishing still works then).
    """
    stop = _Stop()
    try:
        rclpy = _init_ros()
        try:
            _spin(rclpy, factory, stop)
        finally:
            stop.ignore()
            rclpy.try_shutdown()
    except ContractError as error:
        fail(str(error))
    raise SystemExit(0)
