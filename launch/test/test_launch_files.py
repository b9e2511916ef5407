"""The launch files start the very processes that ``rl100 up`` starts (needs ROS's ``launch``)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_nodes import fake_environment, left_over, wait_nodes

from rl100.systems import SYSTEMS, describe

# Looked for, not imported: the folder of this test is called launch as well.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("launch_ros") is None, reason="ROS's launch is not installed"),
]

FILES = Path(__file__).resolve().parent.parent
LAUNCH = """
import sys
from importlib.util import find_spec
from itertools import pairwise
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *pairs = sys.argv[1:]
service = LaunchService()
source = PythonLaunchDescriptionSource(file)
arguments = [tuple(pair.split(":=", 1)) for pair in pairs]
service.include_launch_description(
    IncludeLaunchDescription(source, launch_arguments=arguments)
)
sys.exit(service.run())
"""
RECORD = {"sim": "true", "device": "scripted", "noise": "1", "seed": "5", "data": "1e3"}


def start(tmp_path: Path, name: str, arguments: dict[str, str], **does: str) -> Any:
    pairs = [f"{key}:={value}" for key, value in arguments.items()]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(FILES / f"{name}.launch.py"), *pairs],
        env=fake_environment(tmp_path, **does),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def parameters(node: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a node was started with, as ROS would read them."""
    values: dict[str, Any] = {}
    for text in node["files"]:
        for section in yaml.safe_load(text).values():
            values.update(section["ros__parameters"])
    words = node["words"]
    for flag, word in pairwise(words):
        if flag == "-p":
            key, _, value = word.partition(":=")
            values[key] = yaml.safe_load(value)
    return values


@pytest.mark.parametrize(
    ("system", "arguments"), [("record", RECORD), ("demo", {}), ("train", {}), ("sim", {})]
)
def test_same_nodes_and_parameters(tmp_path: Path, system: str, arguments: dict[str, str]) -> None:
    expected = {spec.name: spec for spec in describe(system, arguments)}
    process = start(tmp_path, system, arguments)
    nodes = wait_nodes(tmp_path, expected)
    # As a terminal does it: launch counts on Ctrl-C reaching the nodes as well.
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert set(nodes) == set(expected)
    for name, spec in expected.items():
        found = parameters(nodes[name])
        assert found == dict(spec.parameters)
        assert {k: type(v) for k, v in found.items()} == {
            k: type(v) for k, v in spec.parameters.items()
        }
        assert nodes[name]["env"]["FASTDDS_DEFAULT_PROFILES_FILE"]
        for key, value in spec.environment.items():
            assert nodes[name]["env"][key] == value
    assert left_over(tmp_path) == []
    assert "Traceback" not in out


def test_a_needed_node_ends_the_launch(tmp_path: Path) -> None:
    process = start(tmp_path, "record", RECORD, rl100_gateway="exit:7")
    out, _ = process.communicate(timeout=60)
    assert re.search(r"gateway-\d+\] was required: shutting down", out)
    assert left_over(tmp_path) == []


def test_a_wrong_argument_gives_a_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, "record", {**RECORD, "device": "mouse"})
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "mouse" in out
    assert "scripted" in out
    assert not (tmp_path / "out" / "rl100_gateway.json").exists()


def test_every_launch_file_belongs_to_a_system() -> None:
    names = {file.name.removesuffix(".launch.py") for file in FILES.glob("*.launch.py")}
    # "evaluate" is of use to `rl100 eval` only.
    assert names == set(SYSTEMS) - {"evaluate"}
