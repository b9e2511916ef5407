"""Every parameter that a system passes is declared by its node: ROS drops others silently."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rl100.environment import find_executable
from rl100.system_parts import NodeSpec
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.errors import ContractError

pytestmark = pytest.mark.integration

EVERY = {"noise": "0.1", "threads": "1", "provider": "auto"}
PROBE = """
import json, sys, rclpy
from rcl_interfaces.srv import ListParameters
rclpy.init()
node = rclpy.create_node("parameter_probe")
found = {}
for name in sys.argv[1:]:
    client = node.create_client(ListParameters, f"/{name}/list_parameters")
    if client.wait_for_service(60.0):
        future = client.call_async(ListParameters.Request())
        rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
        found[name] = list(future.result().result.names)
print(json.dumps(found))
"""


def nodes() -> list[NodeSpec]:
    joy = [n for n in describe("record", {"device": "joy"}) if n.executable == "teleop_joy"]
    return [*describe("demo", EVERY), *joy]


def test_parameters_are_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    import subprocess

    pytest.importorskip("rclpy")
    try:
        for spec in nodes():
            find_executable(spec)
    except ContractError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    with RunningSystem(nodes(), tmp_path / "logs") as system:
        names = [process.spec.name for process in system.processes]
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *names], capture_output=True, text=True, timeout=200
        )
        system.check()
    declared = json.loads(done.stdout)
    for spec in nodes():
        assert set(spec.parameters) <= set(declared[spec.name]), spec.name
