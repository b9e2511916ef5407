"""The push scene: an MJCF string and what varies from seed to seed.

All lengths are metres in the ``base_link`` frame, whose origin lies on the table's surface in the
middle of the workspace. The arm stands behind the workspace, at ``x = PushScene.arm_x``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from rl100_sim.robot import TIMESTEP_S

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PushScene:
    """Nominal geometry and physics of the push task (m, kg, s, rad)."""

    arm_x: float = -0.60
    link_1: float = 0.50
    link_2: float = 0.48
    link_height: float = 0.22
    pusher_radius: float = 0.014
    pusher_bottom: float = 0.006
    pusher_top: float = 0.16
    block_half: tuple[float, float, float] = (0.035, 0.035, 0.03)
    block_mass: float = 0.2
    block_friction: float = 0.6
    goal: tuple[float, float] = (0.18, 0.0)
    success_radius: float = 0.03
    block_x: tuple[float, float] = (-0.15, 0.02)
    block_y: tuple[float, float] = (-0.18, 0.18)
    tool_x: tuple[float, float] = (-0.27, 0.05)
    tool_y: tuple[float, float] = (-0.20, 0.20)
    clearance: float = 0.10
    timestep: float = TIMESTEP_S


@dataclass(frozen=True)
class Randomisation:
    """How far physics varies from seed to seed; ``scale`` 0 keeps it nominal, 1 is the default.

    The start (block, yaw, tool) varies at every scale: it is the task, not a disturbance.
    Friction and mass are multiplied by ``1 + scale * U(-range, range)``. The command delay is drawn
    uniformly from ``delay_s``, in whole physics steps; at scale 0 it is the middle of the range.
    """

    scale: float = 1.0
    friction: float = 0.25
    mass: float = 0.25
    delay_s: tuple[float, float] = (0.010, 0.020)
    camera_position_std: float = 0.0
    camera_angle_std: float = 0.0


@dataclass
class Variation:
    """What one seed drew: the start, the physics and the (true) error of the camera's pose."""

    block_xy: FloatArray
    block_yaw: float
    tool_xy: FloatArray
    friction: float
    mass: float
    delay_steps: int
    camera_shift: FloatArray = field(default_factory=lambda: np.zeros(3))
    camera_rotation: FloatArray = field(default_factory=lambda: np.zeros(3))


def draw_variation(scene: PushScene, randomisation: Randomisation, seed: int) -> Variation:
    """Draw what ``seed`` stands for. Each part has a random stream of its own.

    So a change of, say, the delay's range leaves the start poses of every seed as they were.
    """
    start, physics, delay, camera = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)
    )
    block = np.array([start.uniform(*scene.block_x), start.uniform(*scene.block_y)])
    yaw = float(start.uniform(-math.pi, math.pi))
    while True:
        tool = np.array([start.uniform(*scene.tool_x), start.uniform(*scene.tool_y)])
        if float(np.hypot(*(tool - block))) >= scene.clearance:
            break
    scale = randomisation.scale
    friction = scene.block_friction * (
        1.0 + scale * physics.uniform(-randomisation.friction, randomisation.friction)
    )
    mass = scene.block_mass * (
        1.0 + scale * physics.uniform(-randomisation.mass, randomisation.mass)
    )
    low, high = randomisation.delay_s
    middle, spread = (low + high) / 2.0, (high - low) / 2.0
    delay_s = middle + min(scale, 1.0) * spread * delay.uniform(-1.0, 1.0)
    return Variation(
        block_xy=block,
        block_yaw=yaw,
        tool_xy=tool,
        friction=float(friction),
        mass=float(mass),
        delay_steps=max(0, round(delay_s / scene.timestep)),
        camera_shift=scale * randomisation.camera_position_std * camera.standard_normal(3),
        camera_rotation=scale * randomisation.camera_angle_std * camera.standard_normal(3),
    )


def build_mjcf(scene: PushScene) -> str:
    """Return the scene's MJCF.

    Groups: 0 = never moves (table), 1 = moves (block, arm, pusher), 4 = drawn but not in the depth
    image (the goal is a painted mark). Links carry no collision: they hang ``link_height`` above
    the table, higher than the block can get.
    """
    s = scene
    tool_drop = s.link_height - s.pusher_bottom - s.pusher_radius
    pusher_end = s.link_height - s.pusher_top
    bx, by, bz = s.block_half
    return f"""
<mujoco model="rl100_push">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{s.timestep}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual><global offwidth="640" offheight="480"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".8 .85 .9" rgb2=".4 .45 .5"
             width="64" height="64"/>
  </asset>
  <default>
    <geom solref="0.02 1" friction="{s.block_friction} 0.005 0.0001"/>
    <default class="link">
      <geom contype="0" conaffinity="0" group="1" rgba=".75 .75 .78 1"/>
      <joint type="hinge" axis="0 0 1" armature="0.05" damping="0.5"/>
    </default>
  </default>
  <worldbody>
    <light pos="0 0 2" dir="0 0 -1" diffuse=".8 .8 .8"/>
    <geom name="table" type="box" size=".75 .6 .02" pos="-.05 0 -.02" group="0"
          friction="0.1 0.005 0.0001" rgba=".55 .45 .35 1"/>
    <geom name="goal" type="cylinder" size="{s.success_radius} .0005"
          pos="{s.goal[0]} {s.goal[1]} .0005" contype="0" conaffinity="0" group="4"
          rgba=".1 .7 .2 1"/>
    <geom name="column" type="cylinder" size=".05 {s.link_height / 2}"
          pos="{s.arm_x} 0 {s.link_height / 2}" contype="0" conaffinity="0" group="0"
          rgba=".3 .3 .35 1"/>
    <body name="link_1" pos="{s.arm_x} 0 {s.link_height}" childclass="link">
      <joint name="shoulder_joint" range="-2.6 2.6"/>
      <geom type="capsule" fromto="0 0 0.05 {s.link_1} 0 0.05" size=".035" mass="1.5"/>
      <body name="link_2" pos="{s.link_1} 0 0">
        <joint name="elbow_joint" range="0.2 2.8"/>
        <geom type="capsule" fromto="0 0 0 {s.link_2} 0 0" size=".025" mass="0.8"/>
        <body name="tool" pos="{s.link_2} 0 0">
          <geom type="cylinder" fromto="0 0 0 0 0 -{pusher_end}" size=".02" mass="0.1"/>
          <geom name="pusher" type="capsule" fromto="0 0 -{pusher_end} 0 0 -{tool_drop}"
                size="{s.pusher_radius}" mass="0.15" contype="1" conaffinity="1"
                friction="0.3 0.005 0.0001" rgba=".2 .3 .8 1"/>
        </body>
      </body>
    </body>
    <body name="block" pos="0 0 {bz}">
      <freejoint name="block_joint"/>
      <geom name="block" type="box" size="{bx} {by} {bz}" mass="{s.block_mass}" group="1"
            rgba=".8 .25 .15 1"/>
    </body>
  </worldbody>
  <actuator>
    <position name="shoulder" joint="shoulder_joint" kp="900" kv="45" forcerange="-120 120"/>
    <position name="elbow" joint="elbow_joint" kp="300" kv="12" forcerange="-60 60"/>
  </actuator>
</mujoco>
"""


def compile_scene(scene: PushScene) -> mujoco.MjModel:
    """Compile the scene once; :func:`apply_variation` changes the compiled model per seed."""
    return mujoco.MjModel.from_xml_string(build_mjcf(scene))


def apply_variation(model: mujoco.MjModel, scene: PushScene, variation: Variation) -> None:
    """Write a variation's friction and mass into ``model``. Overwrites every earlier variation."""
    geom = model.geom("block").id
    # MuJoCo takes the larger friction of a touching pair; the block's is the largest everywhere.
    model.geom_friction[geom, 0] = variation.friction
    body = model.body("block").id
    bx, by, bz = scene.block_half
    third = variation.mass / 3.0
    model.body_mass[body] = variation.mass
    model.body_inertia[body] = (
        third * (by * by + bz * bz),
        third * (bx * bx + bz * bz),
        third * (bx * bx + by * by),
    )
