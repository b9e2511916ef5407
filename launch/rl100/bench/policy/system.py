"""The nodes under test, as ``rl100 up deploy`` starts them, on a ROS domain of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from rl100.bench.policy.wire import Wire
from rl100.system_parts import Value
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.bundle import TASK, load_manifest
from rl100_contracts.errors import ContractError
from rl100_contracts.task import load_task
from rl100_node.realtime import RealtimeSettings, apply_realtime, back_to_normal

#: Of the robot that the benchmark plays: below the nodes.
ROBOT_PRIORITY = 40
POLICY, GATEWAY = "rl100_policy", "rl100_gateway"
MIB = 1024.0 * 1024.0


class Running:
    """The wire to running nodes, their memory, and what the system refused of ``realtime``."""

    def __init__(self, wire: Wire, system: RunningSystem, refused: Sequence[str]) -> None:
        self.wire, self.refused = wire, refused
        self._system = system

    def memory_mib(self, node: str) -> float:
        """Resident memory of a node's process now, MiB; raises ContractError when it has ended."""
        process = next(p for p in self._system.processes if p.spec.name == node)
        try:
            return float(psutil.Process(process.pid).memory_info().rss / MIB)
        except psutil.Error:
            raise ContractError(process.how_it_ended()) from None


@contextmanager
def _as_a_robot(realtime: bool) -> Iterator[list[str]]:
    """With the priority that a robot's computer gives its driver; what the system refuses."""
    if not realtime:
        yield []
        return
    refused = apply_realtime(RealtimeSettings(thread_priority=ROBOT_PRIORITY))
    try:
        yield refused
    finally:
        back_to_normal()


@contextmanager
def running(bundle: Path, log: Path, *, realtime: bool = False) -> Iterator[Running]:
    """Start policy and gateway on a bundle and its task, wait until they work, stop them.

    Args:
        bundle: of the policy.
        log: folder of the nodes' log files.
        realtime: ask for real-time priorities, for this process too.

    Raises:
        ContractError: a node does not come up, or ends.
    """
    task_file = bundle / TASK
    arguments: dict[str, Value] = {"task": str(task_file), "bundle": str(bundle), "respawn": False}
    arguments["arming"] = False  # the robot is a process of the benchmark
    arguments["realtime"] = realtime
    specs = [spec for spec in describe("deploy", arguments) if spec.name in (POLICY, GATEWAY)]
    domain = random.SystemRandom().randrange(1, 100)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    with (
        RunningSystem(specs, log, environment=environment) as system,
        Wire(load_task(task_file), domain, system.check) as wire,
    ):
        wire.connect(load_manifest(bundle).policy_version)
        with _as_a_robot(realtime) as refused:
            normal = [
                f"{process.spec.name} has no real-time priority: its log says why"
                for process in system.processes
                if realtime and os.sched_getscheduler(process.pid or 0) != os.SCHED_FIFO
            ]
            yield Running(wire, system, [*normal, *refused])
