"""Pins the arm's kinematics and what the robot's own controller does with commands."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl100_contracts.task import Task
from rl100_sim.robot import ArmKinematics, Firmware
from rl100_sim.scene import PushScene

SCENE = PushScene()
ARM = ArmKinematics(SCENE.arm_x, SCENE.link_1, SCENE.link_2)


@given(shoulder=st.floats(-2.5, 2.5, allow_nan=False), elbow=st.floats(0.3, 2.7, allow_nan=False))
def test_inverse_undoes_forward(shoulder: float, elbow: float) -> None:
    x, y = ARM.forward((shoulder, elbow)).tolist()
    joints = ARM.inverse(x, y)
    # A pose whose shoulder angle leaves the limits after wrapping has no solution; none here does.
    assert joints is not None
    assert joints == pytest.approx((shoulder, elbow), abs=1e-9)


def test_whole_workspace_is_reachable_and_away_from_singularities(task: Task) -> None:
    (x0, y0), (x1, y1) = task.limits.position_low, task.limits.position_high
    for x in np.linspace(x0, x1, 25):
        for y in np.linspace(y0, y1, 25):
            joints = ARM.inverse(float(x), float(y))
            assert joints is not None
            assert ARM.forward(joints) == pytest.approx((x, y), abs=1e-12)
            assert math.sin(joints[1]) > 0.4


@pytest.mark.parametrize("target", [(5.0, 0.0), (math.nan, 0.0), (0.0, math.inf), (-0.6, 0.0)])
def test_impossible_targets_are_ignored_and_counted(target: tuple[float, float]) -> None:
    firmware = Firmware(ARM, tick_s=0.005)
    firmware.reset((0.0, 0.1), delay_steps=0)
    before = firmware.tick()
    assert not firmware.command(*target)
    assert firmware.rejected == 1
    assert [firmware.tick() for _ in range(5)] == [before] * 5
    assert firmware.target == (0.0, 0.1)


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_a_command_takes_effect_after_the_delay(delay: int) -> None:
    firmware = Firmware(ARM, tick_s=0.005)
    firmware.reset((0.0, 0.0), delay_steps=delay)
    still = firmware.tick()
    firmware.command(0.002, 0.0)
    outputs = [firmware.tick() for _ in range(delay + 1)]
    assert outputs[:delay] == [still] * delay
    assert outputs[delay] == pytest.approx(ARM.inverse(0.002, 0.0), abs=1e-12)


def test_set_point_travels_straight_and_no_faster_than_allowed() -> None:
    firmware = Firmware(ARM, tick_s=0.005, max_speed=0.5)
    firmware.reset((0.0, 0.0), delay_steps=0)
    firmware.command(0.03, 0.04)
    path = np.array([ARM.forward(firmware.tick()) for _ in range(25)])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps[:18] == pytest.approx(np.full(18, 0.0025), abs=1e-9)
    assert path[-1] == pytest.approx((0.03, 0.04), abs=1e-9)
    assert path[:19, 1] * 0.03 == pytest.approx(path[:19, 0] * 0.04, abs=1e-9)


def test_robot_holds_where_it_is_when_commands_stop() -> None:
    firmware = Firmware(ARM, tick_s=0.005, max_speed=0.1, timeout_steps=10)
    firmware.reset((0.0, 0.0), delay_steps=0)
    firmware.command(0.1, 0.0)
    outputs = [firmware.tick() for _ in range(30)]
    assert firmware.held
    assert outputs[-1] == outputs[11]
    assert 0.0 < ARM.forward(outputs[-1])[0] < 0.01
    firmware.command(0.1, 0.0)
    assert not firmware.held
    assert firmware.tick() != outputs[-1]
