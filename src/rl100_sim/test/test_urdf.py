"""The URDF of the simulated arm is the arm that MuJoCo simulates, and its checks never stand in
the way of the task push.

Pins: tool pose of the URDF and of MuJoCo at random joints, to a micrometre; the same joint limits;
no target of an expert's episode and no target anywhere in the task's limits is refused.
"""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

pytest.importorskip("pinocchio")

from rl100_contracts.task import Task, load_task, task_folder
from rl100_control.kinematics import TargetCheck
from rl100_control.robot_model import RobotModel
from rl100_sim.episode import DirectEpisode, expert_action
from rl100_sim.expert import PushExpert
from rl100_sim.scene import PushScene, compile_scene
from rl100_sim.world import PushWorld


def checked_task() -> Task:
    data = load_task("push").model_dump(mode="json")
    data["robot"] = {"urdf": "push.urdf"}
    return Task.model_validate(data)


TASK = checked_task()
FOLDER = task_folder("push")


def test_forward_kinematics_agree_with_mujoco() -> None:
    model, scene = RobotModel(TASK, FOLDER), PushScene()
    simulated = compile_scene(scene)
    data = mujoco.MjData(simulated)
    drop = scene.link_height - scene.pusher_bottom - scene.pusher_radius
    low, high = np.array(simulated.jnt_range[:2]).T
    np.testing.assert_array_equal(model.low, low)
    np.testing.assert_array_equal(model.high, high)
    rng = np.random.default_rng(0)
    for _ in range(200):
        joints = rng.uniform(low, high)
        data.qpos[:2] = joints
        mujoco.mj_kinematics(simulated, data)
        body = data.body("tool")
        expected = body.xpos + body.xmat.reshape(3, 3) @ [0.0, 0.0, -drop]
        position, quaternion = model.forward(joints)
        np.testing.assert_allclose(position, expected, atol=1e-6)
        w, x, y, z = body.xquat
        assert abs(float(quaternion @ [x, y, z, w])) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_expert_is_never_refused(seed: int) -> None:
    world = PushWorld(TASK)
    episode, expert, now = DirectEpisode(world), PushExpert(), [0]
    check = TargetCheck(TASK, FOLDER, lambda: now[0])
    truth = episode.reset(seed)
    while not truth.done:
        measured = world.proprioception()
        check.on_joints(now[0], measured.joint_positions)
        episode.act(expert_action(expert, truth))
        assert check(episode.target, measured.tool_xy) == ""
        truth = episode.truth
        now[0] += TASK.control.period_ns
    assert truth.step > 5


def test_no_target_within_the_limits_is_refused() -> None:
    world, limits = PushWorld(TASK), TASK.limits
    check = TargetCheck(TASK, FOLDER, lambda: 0)
    step = 0.03
    for x in np.linspace(limits.position_low[0], limits.position_high[0], 15):
        for y in np.linspace(limits.position_low[1], limits.position_high[1], 15):
            joints = world.kinematics.inverse(float(x), float(y))
            assert joints is not None
            check.on_joints(0, np.array(joints))
            here = np.array([x, y])
            for move in ([step, step], [step, -step], [-step, step], [-step, -step]):
                target = np.clip(here + move, limits.position_low, limits.position_high)
                assert check(target, here) == "", (here, target)
