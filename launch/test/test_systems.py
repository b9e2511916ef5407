"""The description of the systems: what is in each, and that wrong arguments are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from rl100.system_arguments import PROVIDERS
from rl100.systems import SYSTEMS, describe, parse_assignments, preflight, resolve
from rl100.up import command_line, parameter_text
from rl100_contracts.errors import ContractError
from rl100_contracts.task import load_task

BUNDLE = {"bundle": "/b"}
# A task that the simulated arm cannot play.
ARM6 = str(Path(__file__).parents[2] / "src" / "rl100_control" / "examples" / "arm6_pose.yaml")


def names(system: str, **arguments: str) -> list[str]:
    return [spec.name.removeprefix("rl100_") for spec in describe(system, arguments)]


def test_each_system_has_its_nodes() -> None:
    assert names("deploy", **BUNDLE) == ["perception", "gateway", "policy"]
    assert names("deploy", sim="true", **BUNDLE)[0] == "sim"
    assert names("record") == ["perception", "gateway", "recorder", "teleop", "reward_keyboard"]
    assert names("record", sim="true", device="scripted")[-2:] == [
        "scripted_teleop",
        "scripted_labeller",
    ]
    assert set(names("rollout", sim="true", **BUNDLE)) == {
        "sim",
        "perception",
        "gateway",
        "recorder",
        "policy",
        "scripted_labeller",
    }
    assert names("rollout", labeller="none", **BUNDLE)[-1] == "policy"
    assert names("train") == ["trainer"]
    assert names("deploy", device="joy", **BUNDLE)[-1] == "teleop"
    assert "teleop" in names("rollout", device="keyboard", **BUNDLE)


def test_rviz_comes_with_its_layout_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "rviz2" not in names("record")
    for system, more in (("record", {}), ("deploy", BUNDLE), ("rollout", BUNDLE)):
        spec = describe(system, {"rviz": "true", **more})[-1]
        program, option, layout, *ros = command_line(spec, "rviz2")
        assert (program, option, ros[0]) == ("rviz2", "-d", "--ros-args")
        assert Path(layout).name == "rl100.rviz" and Path(layout).is_file()
        assert not spec.required and not spec.respawn  # closing its window ends nothing
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(ContractError, match=r"^rviz:=true: RViz \(rviz2\) is not in the ROS 2"):
        preflight("record", {"rviz": "true"})
    program_file = tmp_path / "lib" / "rviz2" / "rviz2"
    program_file.parent.mkdir(parents=True)
    program_file.touch(mode=0o755)
    assert preflight("record", {"rviz": "true"})[-1].name == "rviz2"


def test_a_task_without_a_cloud_needs_no_perception() -> None:
    for system in ("record", "demo", "evaluate"):
        assert "perception" in names(system, task="push")
        assert "perception" not in names(system, task="push_rgb")
    # What cannot be read is for the nodes to name.
    assert "perception" in names("record", task="no/such.yaml")


def test_what_a_policy_runs_is_set_by_the_system() -> None:
    deploy = {s.name: s for s in describe("deploy", BUNDLE)}["rl100_policy"].parameters
    rollout = {s.name: s for s in describe("rollout", BUNDLE)}["rl100_policy"].parameters
    assert (deploy["sampler"], deploy["stochastic"]) == ("one_step", False)
    assert (rollout["sampler"], rollout["stochastic"]) == ("k_step", True)


def test_exactly_one_node_commands_the_robot_and_it_is_never_restarted() -> None:
    for name in ("deploy", "record", "rollout", "demo", "evaluate"):
        gateways = [
            s
            for s in describe(name, BUNDLE if name in ("deploy", "rollout") else {})
            if s.package == "rl100_control"
        ]
        assert len(gateways) == 1
        assert gateways[0].required
        assert not gateways[0].respawn


@pytest.mark.parametrize("system", ["deploy", "rollout"])
def test_a_policy_is_armed_by_a_person_except_in_simulation(system: str) -> None:
    def arming(**arguments: str) -> object:
        nodes = describe(system, {**BUNDLE, **arguments})
        return next(s for s in nodes if s.name == "rl100_gateway").parameters["arming"]

    assert arming() is True
    assert arming(sim="true") is arming(sim="true", lockstep="true") is False
    assert arming(sim="true", arming="true") is True
    assert arming(arming="false") is False


def test_without_respawn_every_restartable_node_ends_the_system() -> None:
    before = {s.name for s in describe("deploy", BUNDLE) if s.respawn}
    assert before
    after = describe("deploy", {**BUNDLE, "respawn": "false"})
    assert not any(s.respawn for s in after)
    assert before <= {s.name for s in after if s.required}


def test_optional_values_are_left_to_the_node() -> None:
    policy = describe("deploy", BUNDLE)[-1]
    assert "provider" not in policy.parameters
    assert describe("deploy", {**BUNDLE, "threads": "2"})[-1].parameters["threads"] == 2


@pytest.mark.parametrize(
    ("system", "arguments", "words"),
    [
        ("deplyo", {}, ["deplyo", "did you mean 'deploy'"]),
        ("deploy", {"bundel": "x"}, ["bundel", "did you mean 'bundle'"]),
        ("deploy", {}, ["bundle:=VALUE"]),
        ("deploy", {**BUNDLE, "sim": "yes"}, ["sim:=yes", "true or false"]),
        ("deploy", {**BUNDLE, "seed": "1.5"}, ["seed:=1.5", "whole number"]),
        ("deploy", {**BUNDLE, "sampler": "onestep"}, ["one_step", "did you mean"]),
        ("deploy", {**BUNDLE, "lockstep": "true"}, ["sim:=true"]),
        ("record", {"device": "scripted"}, ["sim:=true"]),
        ("rollout", {**BUNDLE, "labeller": "scripted"}, ["sim:=true"]),
        ("deploy", {**BUNDLE, "policy_cpus": "abc"}, ["policy_cpus:=abc", "CPU numbers such as 2"]),
        ("deploy", {**BUNDLE, "gateway_cpus": "3-2"}, ["gateway_cpus:=3-2", "CPU numbers"]),
        ("deploy", {**BUNDLE, "provider": "gpu"}, ["provider:=gpu", "auto, cpu, openvino, cuda"]),
        ("deploy", {**BUNDLE, "threads": "-3"}, ["threads:=-3", "a whole number from 1 to 64"]),
        ("demo", {"noise": "nan"}, ["noise:=nan", "a number from 0.0 to 5.0"]),
        ("sim", {"seed": "-1"}, ["seed:=-1", "from 0 to"]),
        ("sim", {"task": ARM6}, ["arm6_pose", "joint_names must be"]),
        ("deploy", {**BUNDLE, "sim": "true", "task": ARM6}, ["arm6_pose", "simulated arm"]),
    ],
)
def test_wrong_arguments_give_a_sentence(
    system: str, arguments: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ContractError) as caught:
        describe(system, arguments)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_scripted_operator_needs_a_task_that_it_can_play(tmp_path: Path) -> None:
    task = load_task("push").model_dump(mode="json")
    task["action"] |= {"space": "tool_position", "low": [-0.4, -0.4], "high": [0.4, 0.4]}
    path = tmp_path / "push.yaml"
    path.write_text(yaml.safe_dump(task))
    arguments = {"task": str(path), "sim": "true"}
    assert describe("record", {**arguments, "device": "joy"})
    with pytest.raises(ContractError, match="the scripted teleoperator needs"):
        describe("record", {**arguments, "device": "scripted"})


def test_providers_are_those_of_the_policy_node() -> None:
    providers = pytest.importorskip("rl100_policy_node.providers")
    assert set(PROVIDERS) == {"auto", *providers.SHORT}
    for name in ("CPU", "Cuda", "CUDAExecutionProvider"):
        assert describe("deploy", {**BUNDLE, "provider": name})[-1].parameters["provider"] == name


def test_python_values_mean_the_same_as_text() -> None:
    text = describe("record", {"sim": "true", "device": "scripted", "noise": "0.1", "seed": "3"})
    assert text == describe("record", {"sim": True, "device": "scripted", "noise": 0.1, "seed": 3})


def test_an_empty_value_means_the_default() -> None:
    assert resolve("record", {"noise": "", "seed": ""}) == resolve("record", {})


@pytest.mark.parametrize("word", ["bundle=x", "bundle", ":=x"])
def test_an_assignment_needs_its_mark(word: str) -> None:
    with pytest.raises(ContractError, match="key:=value"):
        parse_assignments([word])


def test_an_argument_given_twice_is_refused() -> None:
    with pytest.raises(ContractError, match="twice"):
        parse_assignments(["seed:=1", "seed:=2"])


def test_a_missing_task_or_bundle_is_found_before_anything_starts() -> None:
    with pytest.raises(ContractError, match="no_such_task"):
        preflight("sim", {"task": "no_such_task"})
    with pytest.raises(ContractError, match="no_such_bundle"):
        preflight("deploy", {"bundle": "/no_such_bundle"})


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0,
        -7,
        0.5,
        1.0,
        1e-05,
        2e30,
        "push",
        "/a/b c",
        "it's",
        "1e3",
        "no",
        "null",
        "y",
        "0x10",
        "",
        "a: b",
        "#x",
        "~",
    ],
)
def test_parameters_keep_value_and_type(value: object) -> None:
    read = yaml.safe_load(parameter_text(value))  # type: ignore[arg-type]
    assert read == value
    assert type(read) is type(value)


def test_a_command_line_names_the_node_and_its_parameters() -> None:
    spec = describe("sim", {"seed": "4"})[0]
    assert command_line(spec, "/x/sim") == [
        *("/x/sim", "--ros-args", "-r", "__node:=rl100_sim"),
        *("-p", "task:=push", "-p", "lockstep:=false", "-p", "seed:=4"),
    ]


def test_every_default_fits_its_own_argument() -> None:
    for system in SYSTEMS.values():
        for argument in system.arguments:
            if argument.default is not None:
                argument.parse(argument.default)


def test_launching_works_on_a_python_without_the_nodes_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("rl100_contracts.bundle", "rl100_contracts.task"):
        monkeypatch.setitem(sys.modules, module, None)
    assert preflight("sim", {"task": "no_such_task"}) == describe("sim", {"task": "no_such_task"})
    with pytest.raises(ContractError, match="no argument"):
        preflight("sim", {"tusk": "push"})


def test_realtime_reaches_policy_and_gateway_and_nobody_else() -> None:
    given = {"bundle": "b", "realtime": "true", "policy_cpus": "1-2", "gateway_cpus": "0"}
    found = {node.name: node.parameters for node in describe("deploy", given)}
    policy, gateway = found["rl100_policy"], found["rl100_gateway"]
    assert (policy["cpu_affinity"], gateway["cpu_affinity"]) == ("1-2", "0")
    for parameters in (policy, gateway):
        assert parameters["lock_memory"] is True and parameters["freeze_gc"] is True
    assert gateway["thread_priority"] > policy["thread_priority"] > 0
    others = [p for name, p in found.items() if name not in ("rl100_policy", "rl100_gateway")]
    assert others and not any("thread_priority" in p for p in others)
    plain = {node.name: node.parameters for node in describe("deploy", {"bundle": "b"})}
    assert not {"thread_priority", "cpu_affinity"} & set(plain["rl100_policy"])
