"""``rl100 load`` and ``rl100 status`` against real nodes: another bundle and back, refusals in one
sentence, one screen of what runs, JSON for scripts, and one sentence where nothing runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rl100_msgs")
pytest.importorskip("onnx")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from run_command import rl100_beside

from rl100_contracts.task import load_task
from rl100_node.testing import Graph
from rl100_policy_node.testing import write_bundle

pytestmark = pytest.mark.integration


@pytest.fixture
def graph() -> Iterator[Graph]:
    with Graph() as made:
        yield made


def test_another_bundle_and_back(graph: Graph, tmp_path: Path) -> None:
    task = load_task("push")
    for version in ("first", "second"):
        write_bundle(tmp_path / version, task)
    process = graph.start("rl100_policy_node.main", bundle=tmp_path / "first")
    code, output, errors = rl100_beside(graph, "load", "second", folder=tmp_path)
    assert (code, output, errors) == (0, "second runs from the next chunk on\n", "")
    code, output, errors = rl100_beside(graph, "status", "--json")
    assert code == 0, errors
    said = json.loads(output)
    assert (said["policy"]["version"], said["policy"]["previous"]) == ("second", "first")
    assert said["gateway"] is None
    assert [node["name"] for node in said["nodes"]] == ["rl100_policy"]
    code, output, _ = rl100_beside(graph, "load", "--previous")
    assert (code, output) == (0, "first runs from the next chunk on\n")

    (tmp_path / "second" / "policy.onnx").write_bytes(b"damaged")
    code, output, errors = rl100_beside(graph, "load", str(tmp_path / "second"))
    assert (code, output) == (2, "") and errors.count("\n") == 1
    assert "the policy refuses the bundle (first goes on)" in errors and "damaged" in errors

    graph.stop(process)


def test_a_node_that_says_nothing_is_named(graph: Graph) -> None:
    stuck = rclpy.create_node("rl100_stuck", context=graph.context)
    stuck.create_publisher(DiagnosticArray, "/diagnostics", 10)
    code, output, errors = rl100_beside(graph, "status")
    stuck.destroy_node()
    assert (code, errors) == (0, "")
    assert "silent" in output and "rl100_stuck" in output and "is it stuck?" in output


def test_status_is_one_screen(graph: Graph) -> None:
    processes = [
        graph.start("rl100_control.main", mode="shadow"),
        graph.start("rl100_policy_node.main"),
    ]
    graph.wait(lambda: graph.node.count_publishers("/rl100/policy_status") > 0, "the policy")
    graph.wait(lambda: graph.node.count_publishers("/rl100/gateway_status") > 0, "the gateway")
    code, output, errors = rl100_beside(graph, "status")
    assert (code, errors) == (0, "")
    assert len(output.splitlines()) < 25
    for words in ("none is loaded", "shadow", "mean", "rl100_gateway"):
        assert words in output, output
    said = json.loads(rl100_beside(graph, "status", "--json")[1])
    assert (said["gateway"]["mode"], said["gateway"]["armed"]) == ("shadow", False)
    assert said["gateway"]["shadow_deviation_max"] == 0.0
    assert {node["level"] for node in said["nodes"]} <= {"ok", "warning", "error"}
    for process in processes:
        graph.stop(process)


def test_nothing_runs(graph: Graph, tmp_path: Path) -> None:
    code, output, errors = rl100_beside(graph, "status", "--json")
    assert (code, output) == (2, "") and errors.count("\n") == 1 and "rl100 up" in errors
    bundle = write_bundle(tmp_path / "bundle", load_task("push"))
    for words in (["--previous"], [str(bundle)]):
        code, output, errors = rl100_beside(graph, "load", *words)
        assert (code, output) == (2, "") and errors.count("\n") == 1
        assert "is the policy node running" in errors


def test_a_wrong_folder_is_named_before_any_node_is_asked(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, said in (
        ([], "--previous"),
        (["x", "--previous"], "--previous"),
        (["nowhere"], "nowhere: no such bundle"),
        (["file"], "file: not a folder"),
        (["."], "not a bundle, it has no file manifest.json"),
    ):
        code, output, errors = rl100_beside(graph, "load", *words, folder=tmp_path)
        assert (code, output) == (2, "") and errors.count("\n") == 1
        assert said in errors, errors
