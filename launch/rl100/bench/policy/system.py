"""The nodes under test, as ``rl100 up deploy`` starts them, on a ROS domain of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
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

POLICY, GATEWAY = "rl100_policy", "rl100_gateway"
MIB = 1024.0 * 1024.0


class Running:
    """The wire to running nodes, and their memory."""

    def __init__(self, wire: Wire, system: RunningSystem) -> None:
        self.wire = wire
        self._system = system

    def memory_mib(self, node: str) -> float:
        """Resident memory of a node's process now, MiB; raises ContractError when it has ended."""
        process = next(p for p in self._system.processes if p.spec.name == node)
        try:
            return float(psutil.Process(process.pid).memory_info().rss / MIB)
        except psutil.Error:
            raise ContractError(process.how_it_ended()) from None


@contextmanager
def running(bundle: Path, log: Path) -> Iterator[Running]:
    """Start policy and gateway on a bundle and its task, wait until they work, stop them.

    Args:
        bundle: of the policy.
        log: folder of the nodes' log files.

    Raises:
        ContractError: a node does not come up, or ends.
    """
    task_file = bundle / TASK
    arguments: dict[str, Value] = {"task": str(task_file), "bundle": str(bundle), "respawn": False}
    arguments["arming"] = False  # the robot is a process of the benchmark
    specs = [spec for spec in describe("deploy", arguments) if spec.name in (POLICY, GATEWAY)]
    domain = random.SystemRandom().randrange(1, 100)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    with (
        RunningSystem(specs, log, environment=environment) as system,
        Wire(load_task(task_file), domain, system.check) as wire,
    ):
        wire.connect(load_manifest(bundle).policy_version)
        yield Running(wire, system)
