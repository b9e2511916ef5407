"""Commands that turn the tool: a pose and a twist say the same motion.

Pins: the twist, applied for one control period, leads from the last pose to the new one, however
far the orientation is from the nominal one; a standing target is a twist of zeros.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("geometry_msgs")

from rl100_contracts.task import load_task
from rl100_control.outgoing import pose_command, twist_command

TASK = load_task(Path(__file__).resolve().parents[1] / "examples" / "arm6_pose.yaml")
DT = TASK.control.period_ns * 1e-9


def tick(target: Any, velocity: Any) -> Any:
    values = (np.asarray(v, dtype=np.float64) for v in (target, velocity))
    return SimpleNamespace(stamp_ns=10**9, **dict(zip(("target", "velocity"), values, strict=True)))


def xyz(vector: Any) -> np.ndarray:
    return np.array([vector.x, vector.y, vector.z])


def rotation(message: Any) -> Rotation:
    q = message.pose.orientation
    return Rotation.from_quat([q.x, q.y, q.z, q.w])


@pytest.mark.parametrize("seed", range(5))
def test_a_twist_leads_from_pose_to_pose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, velocity = rng.uniform(-0.8, 0.8, 6), rng.uniform(-1.5, 1.5, 6)
    after = before + velocity * DT
    old, new = (pose_command(TASK, tick(values, velocity)) for values in (before, after))
    twist = twist_command(TASK, tick(after, velocity)).twist
    np.testing.assert_allclose(
        xyz(old.pose.position) + xyz(twist.linear) * DT, xyz(new.pose.position), atol=1e-9
    )
    turned = Rotation.from_rotvec(xyz(twist.angular) * DT) * rotation(old)
    assert (turned * rotation(new).inv()).magnitude() < 1e-8


def test_a_target_that_stands_is_no_twist() -> None:
    twist = twist_command(TASK, tick(np.full(6, 0.5), np.zeros(6))).twist
    np.testing.assert_allclose([*xyz(twist.linear), *xyz(twist.angular)], 0.0, atol=1e-12)
