"""A task file is loaded strictly: each mistake gives one sentence that names the file and the key.

Pins: the built-in task loads; its hash follows every value; unknown keys suggest the right one;
streams that other keys name must exist; a task survives the way through YAML unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, builtin_tasks, load_task


def _write(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    data = load_task("push").model_dump(mode="json")
    change(data)
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_builtin_push_loads() -> None:
    task = load_task("push")
    assert "push" in builtin_tasks()
    assert task.observation.state_dim == 4
    assert task.control.period_ns == 50_000_000
    assert task.action_stream == "executed_action"


def test_yaml_round_trip_keeps_the_hash(tmp_path: Path) -> None:
    task = load_task("push")
    path = tmp_path / "copy.yaml"
    path.write_text(task.to_yaml())
    assert load_task(path) == task
    assert load_task(path).hash == task.hash


def test_hash_follows_limits_but_not_the_description(tmp_path: Path) -> None:
    task = load_task("push")
    limits = load_task(_write(tmp_path, lambda d: d["limits"].update(velocity=[0.1, 0.1])))
    assert limits.hash != task.hash
    # A jerk limit counts only where it changes the motion: here from 1200 m/s^3 down.
    loose = load_task(_write(tmp_path, lambda d: d["limits"].update(jerk=[1200.0, 9e9])))
    tight = load_task(_write(tmp_path, lambda d: d["limits"].update(jerk=[1199.0, 9e9])))
    assert loose.hash == task.hash != tight.hash
    described = load_task(_write(tmp_path, lambda d: d.update(description="other words")))
    assert described.hash == task.hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["control"].update(rate=20.0), ["control.rate", "did you mean 'rate_hz'"]),
        (
            lambda d: d["control"].update(n_obs_step=d["control"].pop("n_obs_steps")),
            ["control.n_obs_step'", "did you mean 'n_obs_steps'"],
        ),
        (lambda d: d["control"].pop("rate_hz"), ["control.rate_hz", "missing"]),
        (lambda d: d["limits"].update(velocity=[1.0]), ["limits.velocity needs 2 values"]),
        (lambda d: d["limits"].update(velocity=[1.0, float("nan")]), ["limits.velocity"]),
        (
            lambda d: d["observation"]["cloud"]["crop"].update(low=[1.0, 1.0, 1.0]),
            ["observation.cloud.crop", "crop box is empty"],
        ),
        (
            lambda d: d["cameras"]["table"].update(depth="points"),
            ["cameras.table.depth", "role cloud"],
        ),
        (lambda d: d.update(camera=d.pop("cameras")["table"]), ["write cameras: {front: {...}}"]),
        (lambda d: d.update(cameras={}), ["cameras is missing"]),
        (lambda d: d["cameras"]["table"].pop("camera_info"), ["camera_info belong together"]),
        (lambda d: d["cameras"]["table"].update(mount="tool"), ["needs tool_pose"]),
        (
            lambda d: d["cameras"]["table"].update(mount="tool", tool_pose="joint_states"),
            ["cameras.table.tool_pose", "not geometry_msgs/msg/PoseStamped"],
        ),
        (lambda d: d["cameras"].update(two=d["cameras"]["table"]), ["have the same images"]),
        (
            lambda d: d["cameras"].update(
                table={
                    **d["cameras"]["table"],
                    "depth": None,
                    "camera_info": None,
                    "points": "points",
                }
            ),
            ["cameras.table.points is the cloud that perception publishes"],
        ),
        (
            lambda d: d["observation"]["cloud"].update(color=True),
            ["needs the camera's stream color"],
        ),
        (
            lambda d: d["observation"]["cloud"].update(max_candidates=300, num_points=301),
            ["max_candidates must not be below num_points"],
        ),
        (lambda d: d["action"].update(feedback="nothing"), ["action.feedback", "'nothing'"]),
        (
            lambda d: d["action"].update(names=["x", "q"]),
            ["names of delta_tool_position"],
        ),
        (
            lambda d: d["action"].update(
                space="delta_joint_position",
                names=["shoulder_joint", "j7"],
                feedback="joint_states",
                command_type="std_msgs/msg/Float64MultiArray",
            ),
            ["action.names has 'j7'", "not in joint_names (shoulder_joint, elbow_joint)"],
        ),
        (lambda d: d["streams"]["depth"].update(topic="no slash"), ["streams.depth.topic"]),
        (
            lambda d: d["streams"]["depth"].update(topic="/rl100/points"),
            ["two streams have the same topic"],
        ),
        (lambda d: d["limits"].update(jerk=[9.0]), ["limits.jerk needs 2 values"]),
        (lambda d: d["limits"].pop("jerk"), ["limits.jerk", "missing"]),
        (lambda d: d["limits"].update(velocity=[0.1, 0.0]), ["'limits.velocity[1]' (y): input"]),
        (lambda d: d["action"].update(low=["no", 1.0]), ["'action.low[0]' (x): input should be"]),
        (
            lambda d: d["streams"]["depth"].update(qos=3) or d["control"].update(rate=1.0),
            ["unknown key 'control.rate'; did you mean 'rate_hz'?; also: key 'streams.depth.qos'"],
        ),
        (lambda d: d.pop("limits"), ["limits", "missing"]),
    ],
)
def test_a_mistake_gives_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    path = _write(tmp_path, change)
    with pytest.raises(ContractError) as caught:
        load_task(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ContractError, match="push"):
        load_task("pusk")


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: push\ncontrol: [1, 2\n")
    with pytest.raises(
        ContractError,
        match=r"broken\.yaml, line \d+: not valid YAML \(expected ',' or ']'",
    ):
        load_task(path)


def test_a_misspelt_key_is_not_also_told_as_missing_and_the_next_mistake_is(tmp_path: Path) -> None:
    def misspell(data: dict[str, Any]) -> None:
        data["limits"]["velocty"] = data["limits"].pop("velocity")

    with pytest.raises(ContractError, match=r"'limits\.velocty'; did you mean 'velocity'\?$"):
        load_task(_write(tmp_path, misspell))

    def more(data: dict[str, Any]) -> None:
        misspell(data)
        del data["episode"], data["action"]["high"]

    with pytest.raises(
        ContractError, match=r"'velocity'\?; also: key 'action\.high' is missing \(and 1 more\)$"
    ):
        load_task(_write(tmp_path, more))


def test_missing_file_and_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        load_task(tmp_path / "none.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ContractError, match="expected keys and values"):
        load_task(path)


def test_task_is_immutable() -> None:
    task: Any = load_task("push")
    with pytest.raises(ValueError, match="frozen"):
        task.name = "other"
    assert isinstance(task, Task)
