"""``rl100 calibrate check --robot``: the camera's error from how the robot is seen. Needs Open3D.

Pins: of points on the true surface of an arm, moved by a known error, that very error is found,
through noise and with other things in view; surfaces inside others are left out; in simulation a
right camera passes and a moved one does not; what is missing is one sentence.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from run_command import rl100
from scipy.spatial.transform import Rotation

from rl100.calibrate.robot_check import fit, surface
from rl100.systems import describe
from rl100.up import RunningSystem
from rl100_contracts.errors import ContractError
from rl100_contracts.task import load_task
from rl100_perception.libusb import provide_libusb

coal = pytest.importorskip("coal")
provide_libusb()
pytest.importorskip("open3d")

TASKS = Path(__file__).parents[2] / "src" / "rl100_contracts" / "rl100_contracts" / "tasks"


def robot_task(path: Path, position: list[float]) -> Path:
    """The push task with its URDF and a camera that sees the arm."""
    data = load_task("push").model_dump(mode="json")
    data["robot"] = {"urdf": str(TASKS / "push.urdf")}
    data["cameras"]["table"]["position"] = position
    path.write_text(yaml.safe_dump(data))
    return path


def side(rng: np.random.Generator, pose: np.ndarray, radius: float, half: float) -> np.ndarray:
    """Points on the half of a cylinder's side that is seen from above."""
    angle, along = rng.uniform(0, 2 * np.pi, 4000), rng.uniform(-half, half, 4000)
    flat = np.stack([radius * np.cos(angle), radius * np.sin(angle), along], axis=1)
    points = flat @ pose[:3, :3].T + pose[:3, 3]
    normals = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1) @ pose[:3, :3].T
    return points[normals[:, 2] > 0.2]


def arm() -> list[tuple[str, object, np.ndarray]]:
    """Two links at an angle, and a post."""
    first, second, post = np.eye(4), np.eye(4), np.eye(4)
    first[:3, :3] = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    first[:3, 3] = [0.25, 0.0, 0.3]
    second[:3, :3] = Rotation.from_euler("yz", [80, 70], degrees=True).as_matrix()
    second[:3, 3] = [0.55, 0.2, 0.32]
    post[:3, 3] = [0.0, 0.0, 0.15]
    return [
        ("first", coal.Cylinder(0.035, 0.5), first),
        ("second", coal.Cylinder(0.025, 0.45), second),
        ("post", coal.Box(0.1, 0.08, 0.3), post),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_known_error_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bodies = arm()
    seen = np.concatenate(
        [side(rng, bodies[0][2], 0.035, 0.25), side(rng, bodies[1][2], 0.025, 0.22)]
    )
    top = np.stack([*rng.uniform([-0.05, -0.04], [0.05, 0.04], (1500, 2)).T, np.full(1500, 0.3)], 1)
    front = np.stack(
        [np.full(1500, 0.05), *rng.uniform([-0.04, 0.05], [0.04, 0.25], (1500, 2)).T], 1
    )
    seen = np.concatenate([seen, top, front])
    seen = seen + rng.normal(0, 0.001, seen.shape)
    other = rng.uniform([0.2, -0.1, 0.3], [0.5, 0.1, 0.4], (600, 3))  # something before the arm
    turn = Rotation.from_rotvec(rng.uniform(-1, 1, 3) * np.radians(0.8))
    shift = rng.uniform(-0.006, 0.006, 3)
    wrong = turn.apply(np.concatenate([seen, other])) + shift
    error = fit("front", wrong, surface(bodies))
    back = wrong[: len(seen)] @ error.correction[:3, :3].T + error.correction[:3, 3]
    assert np.linalg.norm(back - seen, axis=1).mean() < 1.5e-3
    moved = np.linalg.norm(wrong[: len(seen)] - seen, axis=1).mean()
    assert error.shift_m == pytest.approx(moved, abs=1.5e-3)
    assert error.turn_rad == pytest.approx(turn.magnitude(), abs=np.radians(0.25))


def test_inner_surfaces_are_left_out() -> None:
    around, inside = np.eye(4), np.eye(4)
    cloud = surface([("a", coal.Box(1.0, 1.0, 1.0), around), ("b", coal.Sphere(0.2), inside)])
    points = np.abs(np.asarray(cloud.points))
    assert len(points) > 10_000 and points.max(axis=1).min() > 0.49
    normals = np.asarray(cloud.normals)
    assert (np.sum(normals * np.asarray(cloud.points), axis=1) > 0).all()  # they point outwards


def test_meshes_of_a_urdf_are_surfaces_too(tmp_path: Path) -> None:
    pin = pytest.importorskip("pinocchio")
    # A tetrahedron with corners at the origin and 0.3 m along each axis, as ASCII STL.
    corners = 0.3 * np.concatenate([np.zeros((1, 3)), np.eye(3)])
    facets = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    lines = ["solid t"]
    for facet in facets:
        lines += ["facet normal 0 0 0", "outer loop"]
        lines += ["vertex " + " ".join(map(str, corners[i])) for i in facet]
        lines += ["endloop", "endfacet"]
    (tmp_path / "t.stl").write_text("\n".join([*lines, "endsolid t"]))
    urdf = tmp_path / "t.urdf"
    urdf.write_text(
        '<robot name="t"><link name="base"><collision><geometry><mesh filename="t.stl"/>'
        "</geometry></collision></link></robot>"
    )
    model = pin.buildModelFromUrdf(str(urdf))
    kind = pin.GeometryType.COLLISION
    geometry = pin.buildGeomFromUrdf(model, str(urdf), kind, package_dirs=[str(tmp_path)])
    pose = np.eye(4)
    pose[:3, 3] = [1.0, 2.0, 3.0]
    bodies = [(o.name, o.geometry, pose) for o in geometry.geometryObjects]
    points = np.asarray(surface(bodies).points) - pose[:3, 3]
    on_sides = np.abs(points).min(axis=1) < 1e-6
    on_slope = np.abs(points.sum(axis=1) - 0.3) < 1e-6
    assert (on_sides | on_slope).all() and on_slope.any() and on_sides.any()
    assert points.min() > -1e-6 and points.sum(axis=1).max() < 0.3 + 1e-6


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ContractError, match="no collision bodies"):
        surface([])
    far = np.random.default_rng(0).uniform(5, 6, (5000, 3))
    with pytest.raises(ContractError, match="camera 'front' sees only 0 points"):
        fit("front", far, surface(arm()))
    with pytest.raises(ContractError, match="'ear' of the URDF has the shape Ellipsoid"):
        surface([("ear", coal.Ellipsoid(0.1, 0.2, 0.3), np.eye(4))])


def check(task: str | Path, **environment: str) -> tuple[int, str]:
    return rl100("calibrate", "check", "--robot", "--task", task, **environment)


@pytest.mark.integration
def test_the_simulated_arm_is_where_its_joints_put_it(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    pytest.importorskip("rclpy")
    task = robot_task(tmp_path / "task.yaml", [0.3, 0.0, 0.9])
    with RunningSystem(describe("sim", {"task": str(task)}), log_dir=tmp_path / "logs"):
        code, output = check(task)
        assert code == 0 and "within 5 mm" in output, output
        code, output = check(robot_task(tmp_path / "off.yaml", [0.308, 0.006, 0.9]))
        assert code == 1 and "calibrate again" in output, output
        shift = float(output.split("the robot is seen ")[1].split(" mm")[0])
        assert shift == pytest.approx(10.0, abs=1.5)


def test_without_urdf_or_open3d_a_sentence_says_so(tmp_path: Path) -> None:
    code, output = check("push")
    assert code == 2 and "has no key robot with a URDF" in output and output.count("\n") == 1
    (tmp_path / "open3d.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code, output = check(robot_task(tmp_path / "task.yaml", [0.3, 0.0, 0.9]), PYTHONPATH=path)
    assert code == 2 and "needs Open3D (not here): make open3d installs it" in output, output
