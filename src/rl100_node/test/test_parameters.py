"""The real-time parameters as people write them: CPUs, lists, ranges; a mistake is a sentence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

import rclpy

from rl100_contracts.errors import ContractError
from rl100_node.parameters import declare_realtime
from rl100_node.realtime import RealtimeSettings


@pytest.fixture(scope="module")
def context() -> Iterator[object]:
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def declared(context: object, *parameters: str) -> RealtimeSettings:
    arguments = [part for text in parameters for part in ("-p", text)]
    node = rclpy.create_node("test", context=context, cli_args=["--ros-args", *arguments])
    try:
        return declare_realtime(node)
    finally:
        node.destroy_node()


def test_everything_is_off_by_default(context: object) -> None:
    assert declared(context) == RealtimeSettings()


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("2", (2,)),
        ("[3, 2]", (2, 3)),
        ("2-4", (2, 3, 4)),
        ("'0,5-6'", (0, 5, 6)),
        ("''", ()),
    ],
)
def test_cpus(context: object, text: str, cpus: tuple[int, ...]) -> None:
    assert declared(context, f"cpu_affinity:={text}").cpu_affinity == cpus


@pytest.mark.parametrize("text", ["first", "-1", "2-", "1.5", "true", "[1.5]", "2000"])
def test_what_names_no_cpu_is_refused(context: object, text: str) -> None:
    with pytest.raises(ContractError, match="parameter cpu_affinity of test is"):
        declared(context, f"cpu_affinity:={text}")


def test_priority_has_a_range(context: object) -> None:
    settings = declared(context, "thread_priority:=80", "lock_memory:=true", "freeze_gc:=true")
    assert settings == RealtimeSettings(80, (), True, True)
    with pytest.raises(ContractError, match=r"thread_priority of test must be .* from 0 to 99"):
        declared(context, "thread_priority:=100")
