"""Where the bodies of the arm are, for whoever compares them with what a camera sees.

Pins: the bodies of the push arm stand where plane trigonometry puts its links.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pinocchio")

from rl100_contracts.task import load_task
from rl100_control.robot_model import RobotModel

TASKS = Path(__file__).parents[2] / "rl100_contracts" / "rl100_contracts" / "tasks"


def test_bodies_stand_where_the_kinematics_say() -> None:
    task = load_task("push")
    data = {**task.model_dump(mode="json"), "robot": {"urdf": "push.urdf"}}
    model = RobotModel(type(task).model_validate(data), TASKS)
    joints = np.array([0.4, 1.1])
    bodies = {name: pose for name, _, pose in model.bodies(joints)}
    np.testing.assert_allclose(bodies["column_0"][:3, 3], [-0.6, 0.0, 0.11], atol=1e-9)
    elbow = np.array([-0.6 + 0.5 * np.cos(0.4), 0.5 * np.sin(0.4)])
    np.testing.assert_allclose(
        bodies["link_1_0"][:3, 3], [*(np.array([-0.6, 0.0]) + elbow) / 2, 0.27], atol=1e-9
    )
    tool, _ = model.forward(joints)
    # The pusher's cylinder is 214 mm long and ends 14 mm beyond tool0.
    np.testing.assert_allclose(
        bodies["pusher_0"][:3, 3], tool + np.array([0.0, 0.0, 0.093]), atol=1e-9
    )
