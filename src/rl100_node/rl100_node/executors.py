"""The executor of a node, and the way into its thread from another one."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from rclpy.context import Context
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node


def make_executor(context: Context | None = None, *, awaits: bool = False) -> Executor:
    """An executor with little overhead: it is part of every latency.

    rclpy's events executor (Jazzy and later) needs half the processor time for a message and a
    third of the latency of the older one, which looks through all entities for each message. It
    has no guard conditions and no callbacks with message info, and is spun with a time limit.

    Args:
        context: of its nodes; None: the default one.
        awaits: a callback of its nodes is a coroutine, which the events executor does not run.
    """
    if not awaits:
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError:
            pass
        else:
            return EventsExecutor(context=context)
    return SingleThreadedExecutor(context=context)


_failures: WeakKeyDictionary[Node, BaseException] = WeakKeyDictionary()


def call_soon(node: Node, callback: Callable[[], object]) -> None:
    """Have the executor of a node call something, from any thread; nothing before it spins.

    An exception of it ends ``run_node``, as one of any other callback does.
    """

    def guarded() -> None:
        try:
            callback()
        except BaseException as error:
            # A task that raises takes the events executor, and the process, with it.
            _failures[node] = error

    executor = node.executor
    if executor is not None:
        executor.create_task(guarded)


def fail_soon(node: Node, error: BaseException) -> None:
    """Have ``run_node`` end with an exception of another thread."""

    def raise_it() -> None:
        raise error

    call_soon(node, raise_it)


def raise_failure(node: Node) -> None:
    """Raise what a callback of ``call_soon`` raised; for whoever spins."""
    error = _failures.pop(node, None)
    if error is not None:
        raise error
