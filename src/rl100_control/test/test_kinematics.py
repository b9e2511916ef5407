"""Targets are checked by the arm's kinematics: what it cannot do is refused in one sentence.

Pins: inverse kinematics finds what forward kinematics gives; joint limits, joint speed, reach, the
tool's workspace, self-collision (and the pairs that an SRDF allows) and joint states that are
missing, old or of another robot; all three spaces of the example; a robot that lags behind is no
reason to refuse; mistakes in the task file or the URDF are one sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pinocchio")

from rl100_contracts.errors import ContractError
from rl100_contracts.motion import CommandShaper
from rl100_contracts.task import Task, load_task
from rl100_control.kinematics import TargetCheck
from rl100_control.robot_model import RobotModel

FOLDER = Path(__file__).resolve().parents[1] / "examples"
POSE = load_task(FOLDER / "arm6_pose.yaml")
JOINTS = [f"joint_{i}" for i in range(1, 7)]
# Tool down in front of the base, elbow up.
HOME = np.array([0.0, 0.2, 1.2, 0.0, np.pi - 1.4, 0.0])


def task_of(space: str = "delta_tool_pose", **robot: Any) -> Task:
    data = POSE.model_dump(mode="json")
    data["robot"].update(robot)
    limits = data["limits"]
    if space == "tool_pose":
        data["action"].update(low=limits["position_low"], high=limits["position_high"])
    elif space.endswith("joint_position"):
        delta = space.startswith("delta_")
        high = [0.05 if delta else 3.1] * 6
        data["action"].update(
            names=JOINTS, low=[-v for v in high], high=high, feedback="joint_states"
        )
        data["action"].update(quaternion_xyzw=None, command_type="std_msgs/msg/Float64MultiArray")
        limits.update(position_low=[-3.1] * 6, position_high=[3.1] * 6)
        limits.update(velocity=[10.0] * 6, acceleration=[500.0] * 6, jerk=[1e6] * 6)
    data["action"]["space"] = space
    return Task.model_validate(data)


def along(index: int, value: float) -> np.ndarray:
    return value * np.eye(6)[index]


class Bench:
    """A check, a clock, and an arm that stands at some joints."""

    def __init__(self, task: Task, joints: np.ndarray = HOME) -> None:
        self.now_ns = 10**9
        self.task = task
        self.check = TargetCheck(task, FOLDER, lambda: self.now_ns)
        self.stand(joints)

    def stand(self, joints: np.ndarray) -> None:
        self.joints = np.asarray(joints, dtype=np.float64)
        self.check.on_joints(self.now_ns, self.joints)

    def coordinates(self, joints: np.ndarray) -> np.ndarray:
        if not self.task.action.is_cartesian:
            return joints
        return self.task.action.coordinates.of_pose(*self.check.model.forward(joints))

    def ask(self, target: np.ndarray) -> str:
        return self.check(target, self.coordinates(self.joints))


def test_inverse_finds_what_forward_gives() -> None:
    model = RobotModel(POSE, FOLDER)
    rng = np.random.default_rng(0)
    for _ in range(100):
        joints = rng.uniform(0.9 * model.low, 0.9 * model.high)
        joints[4] = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.8)  # off the wrist's singularity
        position, quaternion = model.forward(joints)
        found = model.inverse(position, quaternion, joints + rng.normal(0.0, 0.03, 6))
        assert found is not None
        again, turned = model.forward(found)
        np.testing.assert_allclose(again, position, atol=1e-5)
        assert abs(float(turned @ quaternion)) > 1.0 - 1e-8


def test_rotations_are_those_of_pinocchio() -> None:
    pin = pytest.importorskip("pinocchio")
    tool = POSE.action.coordinates
    nominal = pin.Quaternion(np.array(POSE.action.quaternion_xyzw)).matrix()
    rng = np.random.default_rng(1)
    for _ in range(50):
        before, step = rng.uniform(-0.9, 0.9, 6), rng.uniform(-0.3, 0.3, 6)
        turned = pin.exp3(step[3:]) @ pin.exp3(before[3:]) @ nominal
        position, quaternion = tool.pose(tool.add(before, step))
        np.testing.assert_allclose(pin.Quaternion(quaternion).matrix(), turned, atol=1e-9)
        np.testing.assert_allclose(
            tool.of_pose(position, quaternion)[3:], pin.log3(turned @ nominal.T), atol=1e-9
        )


@pytest.mark.parametrize("space", ["tool_pose", "delta_tool_pose"])
def test_a_pose_that_the_arm_can_reach_is_accepted(space: str) -> None:
    bench = Bench(task_of(space))
    here = bench.coordinates(HOME)
    np.testing.assert_allclose(here[3:], 0.0, atol=1e-9)
    shaper = CommandShaper(bench.task)
    shaper.sync(here)
    step = np.array([0.004, -0.004, 0.003, 0.01, -0.01, 0.02])
    for i in range(20):
        action = step if bench.task.action.is_delta else here + (i + 1) * step
        target = shaper.shape(action, 0.02).target
        assert bench.ask(target) == ""
        found = bench.check.model.inverse(*bench.task.action.coordinates.pose(target), bench.joints)
        assert found is not None
        bench.now_ns += 20_000_000
        bench.stand(found)
    # Twenty small turns later the arm really has the pose that was asked for.
    np.testing.assert_allclose(bench.coordinates(bench.joints), shaper.target, atol=1e-4)


def test_a_robot_that_lags_behind_is_not_refused() -> None:
    bench = Bench(task_of())
    start = bench.coordinates(HOME)
    for i in range(1, 12):  # the targets leave, the joints do not follow
        target = start + along(0, 0.008 * i)
        assert bench.ask(target) == "", i
        bench.now_ns += 20_000_000
        bench.stand(HOME)
    # Without the targets in between the same target is a jump.
    assert "its limit is" in Bench(task_of()).ask(target)


@pytest.mark.parametrize("space", ["joint_position", "delta_joint_position"])
def test_joint_targets_beyond_the_urdfs_limits(space: str) -> None:
    start = HOME.copy()
    start[4] = 2.08
    bench = Bench(task_of(space), start)
    target = start.copy()
    target[4] = 2.09
    assert bench.ask(target) == ""
    target[4] = 2.12
    assert bench.ask(target) == "joint 'joint_5' would be at 2.120 rad, above its limit of 2.100"
    target = start + along(1, 0.06)
    assert bench.ask(target) == (
        "joint 'joint_2' would have to move at 3.00 rad/s, its limit is 2.60"
    )


def test_a_pose_out_of_reach_and_one_through_a_singularity() -> None:
    bench = Bench(task_of("tool_pose"))
    far = bench.coordinates(HOME)
    far[:3] = [0.7, 0.4, 0.6]
    assert "tool0 cannot get to (0.700, 0.400, 0.600) m" in bench.ask(far)
    # Near the wrist's singularity a small turn asks for a leap of joints 4 and 6.
    straight = np.array([0.0, 0.2, 1.2, 0.0, 0.002, 0.0])
    bench = Bench(task_of(), straight)
    here = bench.coordinates(straight)
    tilted = bench.task.action.coordinates.add(here, np.array([0, 0, 0, 0.02, 0, 0]))
    assert "would have to move at" in bench.ask(tilted)


def test_links_that_would_touch_are_named() -> None:
    folded = np.array([0.0, 0.6, 1.3, 0.0, 0.5, 0.0])
    bench = Bench(task_of("joint_position", workspace_low=None, workspace_high=None), folded)
    sentences = []
    for _ in range(60):
        folded = folded + along(1, 0.02)
        if sentence := bench.ask(folded):
            sentences.append(sentence)
            break
        bench.stand(folded)
    assert sentences and "would be closer than 0.005 m" in sentences[0]
    assert "table" in sentences[0]


def test_the_way_back_is_free_from_beyond_a_limit() -> None:
    beyond = HOME.copy()
    beyond[4] = 2.15
    bench = Bench(task_of("joint_position"), beyond)
    assert bench.ask(beyond + along(4, -0.02)) == ""
    assert "above its limit of 2.100" in bench.ask(beyond + along(4, 0.02))
    bench = Bench(task_of("joint_position", workspace_high=[0.8, 0.5, 0.3]))
    height = bench.check.model.forward(HOME)[0][2]
    lower = HOME + along(1, 0.02)
    assert 0.3 < bench.check.model.forward(lower)[0][2] < height
    assert bench.ask(lower) == ""
    assert "outside the workspace" in bench.ask(HOME + along(1, -0.02))


def test_an_arm_that_is_parked_too_tightly_may_only_leave() -> None:
    # The tool is 30 mm above the table and the task wants 50.
    task = task_of("joint_position", workspace_low=None, workspace_high=None, collision_margin=0.05)
    model = RobotModel(task, FOLDER)
    parked = HOME.copy()
    while model.forward(parked)[0][2] > 0.03:
        parked += along(1, 0.005)
    bench = Bench(task, parked)
    assert bench.ask(parked) == ""
    assert bench.ask(parked + along(1, -0.01)) == ""
    assert bench.ask(parked + along(1, 0.01)) == "tool and table would be closer than 0.05 m"


def test_the_margin_counts_and_the_srdf_frees_a_pair() -> None:
    near = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    wide = task_of("joint_position", workspace_low=None, workspace_high=None, collision_margin=0.08)
    bent = near + along(4, 0.05)
    assert Bench(wide, near).ask(bent) == ""
    data = wide.model_dump(mode="json")
    data["robot"]["srdf"] = None
    bench = Bench(Task.model_validate(data), near)
    assert bench.ask(bent) == "forearm and hand would be closer than 0.08 m"


def test_the_tools_workspace() -> None:
    bench = Bench(task_of("joint_position", workspace_high=[0.8, 0.5, 0.3]))
    bench.stand(HOME + along(1, 0.05))
    sentence = bench.ask(HOME)
    assert "tool0 would be at z" in sentence and "robot.workspace_low" in sentence


def test_joint_states_that_are_missing_or_old() -> None:
    task = task_of()
    check = TargetCheck(task, FOLDER, lambda: 0)
    assert check(np.zeros(6), np.zeros(6)) == (
        "no joint states on /joint_states yet: the target cannot be checked"
    )
    bench = Bench(task)
    here = bench.coordinates(HOME)
    bench.now_ns += 300_000_000
    assert bench.ask(here) == "no joint states on /joint_states for more than 0.2 s"
    bench.stand(HOME)
    assert bench.ask(here) == ""
    bench.now_ns -= 10_000_000
    bench.stand(HOME + along(0, 1.0))  # overtaken
    bench.joints = HOME
    assert bench.ask(here) == ""
    bench.now_ns += 5_000_000_000
    bench.stand(HOME)
    bench.now_ns -= 4_700_000_000
    assert "stamped in the future" in bench.ask(here)


def test_a_urdf_of_another_robot() -> None:
    bench = Bench(task_of())
    here = bench.coordinates(HOME)
    assert "the URDF puts tool0 0.200 m from where /tool_pose measures it" in bench.check(
        here, here + along(1, 0.2)
    )
    assert "0.30 rad from where" in bench.check(here, here + along(4, 0.3))


def test_continuous_joints_have_no_limits(tmp_path: Path) -> None:
    text = (FOLDER / "arm6.urdf").read_text()
    limit = '<limit lower="-3.0" upper="3.0" velocity="3.2" effort="30"/>'
    head, tail = text.rsplit(limit, 1)
    text = head + '<limit velocity="3.2" effort="30"/>' + tail
    text = text.replace('"joint_6" type="revolute"', '"joint_6" type="continuous"')
    (tmp_path / "arm.urdf").write_text(text)
    model = RobotModel(task_of(urdf="arm.urdf", srdf=None), tmp_path)
    assert np.isinf(model.high[5]) and model.high[4] == 2.1 and model.velocity[5] == 3.2
    turned = HOME + along(5, 4.0)
    position, quaternion = model.forward(turned)
    found = model.inverse(position, quaternion, turned - 0.02)
    assert found is not None
    np.testing.assert_allclose(found, turned, atol=1e-3)


def test_meshes_and_paths_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share" / "arm_description"
    (share / "urdf").mkdir(parents=True)
    text = (FOLDER / "arm6.urdf").read_text()
    mesh = '<mesh filename="package://arm_description/tool.stl"/>'
    text = text.replace('<cylinder radius="0.02" length="0.08"/>', mesh)
    (share / "urdf" / "arm.urdf").write_text(text)
    corners = [(0, 0, 0), (0.02, 0, 0), (0, 0.02, 0), (0, 0, 0.08)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    vertices = ["".join(f"vertex {' '.join(map(str, corners[i]))}\n" for i in f) for f in faces]
    loops = "".join(f"facet normal 0 0 0\nouter loop\n{v}endloop\nendfacet\n" for v in vertices)
    (share / "tool.stl").write_text(f"solid tool\n{loops}endsolid tool\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    task = task_of(urdf="package://arm_description/urdf/arm.urdf", srdf=None)
    assert RobotModel(task, FOLDER).pairs == RobotModel(POSE, FOLDER).pairs + 1  # no SRDF
    (share / "tool.stl").unlink()
    with pytest.raises(ContractError, match=r"arm\.urdf: not a URDF that can be used .*tool\.stl"):
        RobotModel(task, FOLDER)
    with pytest.raises(ContractError, match=r"robot\.urdf: package://other/arm\.urdf: no such"):
        RobotModel(task_of(urdf="package://other/arm.urdf"), FOLDER)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"robot": {"urdf": "none.urdf"}}, r"robot\.urdf: .*none\.urdf: no such file"),
        ({"robot": {"urdf": "arm.urdf.xacro"}}, "expand it with xacro"),
        ({"robot": {"urdf": "arm6_pose.yaml"}}, "not a URDF that can be used"),
        ({"robot": {"urdf": "arm6.urdf", "srdf": "no.srdf"}}, r"robot\.srdf: .*no such file"),
        ({"tool_frame": "gripper"}, "tool_frame 'gripper' of the task is not there; .* tool0"),
        ({"base_frame": "world"}, "base_frame 'world' of the task is not there"),
        ({"base_frame": "forearm"}, "base_frame 'forearm' moves with the joints"),
        ({"joint_names": ["joint_1", "elbow"]}, "joint 'elbow' of joint_names is not there"),
    ],
)
def test_mistakes_are_one_sentence(change: dict[str, Any], sentence: str) -> None:
    data = POSE.model_dump(mode="json")
    data.update(change)
    with pytest.raises(ContractError, match=sentence) as caught:
        TargetCheck(Task.model_validate(data), FOLDER, lambda: 0)
    assert "\n" not in str(caught.value)


def test_a_missing_pinocchio_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    with pytest.raises(
        ContractError, match=r"needs Pinocchio .*: install it .*or remove the key robot"
    ):
        RobotModel(POSE, FOLDER)
