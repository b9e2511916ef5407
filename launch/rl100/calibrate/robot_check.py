"""``rl100 calibrate check --robot``: is the robot where the cameras see it? Needs Open3D.

The surface of the arm, by its URDF and its measured joints, is matched with what the cameras see
of it (ICP, point to plane). The motion that brings the two together is the error of the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100.calibrate.check import CLOUDS, expected_plane, seen_in
from rl100.calibrate.sources import Source
from rl100.open3d_extra import import_open3d
from rl100_contracts.decode import decode_joints
from rl100_contracts.errors import ContractError
from rl100_contracts.observation_spec import CropBox
from rl100_contracts.task import Task

FloatArray = NDArray[np.float64]

SURFACE_POINTS = 40_000
# So far from the surface a point may be to count as of the robot.
REACH_M = 0.04
# Points nearer to the table are of the table.
ABOVE_TABLE_M = 0.02
LEAST_POINTS = 300
# Distances to the surface beyond this count little: they are of other things.
KERNEL_M = 0.01
STILL_RAD = np.radians(0.3)


@dataclass(frozen=True)
class RobotError:
    """How what one camera sees of the robot differs from where its joints put it.

    Attributes:
        camera: its name.
        shift_m: mean distance that the robot's points move to fit, m.
        turn_rad: by which the camera's view turns to fit, rad.
        rms_m: root mean square distance of the points to the surface, after they fit, m.
        points: how many points of the robot are seen.
        correction: (4, 4), m, moves the camera's cloud (and so the camera) to where it fits.
    """

    camera: str
    shift_m: float
    turn_rad: float
    rms_m: float
    points: int
    correction: FloatArray


def open3d() -> Any:
    """The module; raises ContractError when it is not installed."""
    try:
        return import_open3d()
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ContractError(
            f"the check against the robot needs Open3D ({reason}): make open3d installs it; "
            "without --robot the table is checked"
        ) from None


def _mesh(o3d: Any, name: str, body: Any) -> Any:
    """A Coal geometry as an Open3D mesh in its own frame."""
    make, kind = o3d.geometry.TriangleMesh, type(body).__name__
    if kind == "Cylinder":
        return make.create_cylinder(body.radius, 2.0 * body.halfLength, resolution=60)
    if kind == "Sphere":
        return make.create_sphere(body.radius, resolution=40)
    if kind == "Box":
        mesh = make.create_box(*(2.0 * body.halfSide))
        return mesh.translate(-np.asarray(body.halfSide))
    if kind == "Capsule":
        mesh = make.create_cylinder(body.radius, 2.0 * body.halfLength, resolution=60)
        for side in (-1.0, 1.0):
            ball = make.create_sphere(body.radius, resolution=40)
            mesh += ball.translate([0.0, 0.0, side * body.halfLength])
        return mesh
    if hasattr(body, "num_tris"):  # meshes
        corners = np.asarray(body.vertices())
        sides = [[body.tri_indices(i)[k] for k in range(3)] for i in range(body.num_tris)]
        vector = o3d.utility
        return make(vector.Vector3dVector(corners), vector.Vector3iVector(np.array(sides)))
    raise ContractError(
        f"the body '{name}' of the URDF has the shape {kind}, which is not supported: use boxes, "
        "cylinders, spheres, capsules or meshes"
    )


def surface(bodies: list[tuple[str, Any, FloatArray]], count: int = SURFACE_POINTS) -> Any:
    """Points with normals on the surfaces of bodies, an Open3D cloud in the base frame.

    Points inside another body are left out: nobody sees them.

    Raises:
        ContractError: there is no body, or one that cannot be drawn.
    """
    o3d = open3d()
    if not bodies:
        raise ContractError("the URDF has no collision bodies: there is nothing to compare with")
    o3d.utility.random.seed(0)
    whole, parts = o3d.geometry.TriangleMesh(), []
    for name, body, pose in bodies:
        mesh = _mesh(o3d, name, body).transform(pose)
        parts.append(o3d.t.geometry.TriangleMesh.from_legacy(mesh))
        whole += mesh
    whole.compute_triangle_normals()
    cloud = whole.sample_points_uniformly(count, use_triangle_normal=True)
    points = np.asarray(cloud.points)
    hidden = np.zeros(len(points), dtype=bool)
    for part in parts:
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(part)
        depth = scene.compute_signed_distance(o3d.core.Tensor(points.astype(np.float32)))
        hidden |= depth.numpy() < -1e-3
    return cloud.select_by_index(np.flatnonzero(~hidden))


def fit(camera: str, points: FloatArray, target: Any) -> RobotError:
    """Move points (n, 3), m, onto a surface with normals.

    Raises:
        ContractError: too few of the points are near the surface.
    """
    o3d = open3d()
    registration = o3d.pipelines.registration
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points)).voxel_down_sample(0.003)
    near = np.asarray(cloud.compute_point_cloud_distance(target)) < REACH_M
    cloud = cloud.select_by_index(np.flatnonzero(near))
    if len(cloud.points) < LEAST_POINTS:
        raise ContractError(
            f"camera '{camera}' sees only {len(cloud.points)} points within {REACH_M * 1e3:g} mm "
            "of the robot: move the arm into view, and check that the camera's pose is about right"
        )
    kernel = registration.TukeyLoss(k=KERNEL_M)
    method = registration.TransformationEstimationPointToPlane(kernel)
    criteria = registration.ICPConvergenceCriteria(1e-9, 1e-9, 100)
    motion = np.eye(4)
    for reach in (REACH_M, REACH_M / 2, KERNEL_M):
        found = registration.registration_icp(cloud, target, reach, motion, method, criteria)
        motion = np.asarray(found.transformation)
    seen = np.asarray(cloud.points)
    moved = seen @ motion[:3, :3].T + motion[:3, 3]
    cosine = (np.trace(motion[:3, :3]) - 1.0) / 2.0
    return RobotError(
        camera=camera,
        shift_m=float(np.linalg.norm(moved - seen, axis=1).mean()),
        turn_rad=float(np.arccos(np.clip(cosine, -1.0, 1.0))),
        rms_m=float(found.inlier_rmse),
        points=len(seen),
        correction=motion,
    )


def check_robot(task: Task, folder: Path) -> list[RobotError]:
    """Compare the robot that each camera sees with where its joints put it.

    Args:
        task: with the key ``robot``.
        folder: of the task file.

    Raises:
        ContractError: no URDF, no Open3D, no cloud, or a robot that moves or is not in view.
    """
    from sensor_msgs.msg import JointState

    from rl100_control.robot_model import RobotModel

    if task.robot is None:
        raise ContractError(
            f"task '{task.name}' has no key robot with a URDF, so nobody knows what the robot "
            "looks like: add it, or leave out --robot to check the table"
        )
    open3d()
    model = RobotModel(task, folder)
    topics = {"joint states": (JointState, task.streams[task.robot.joint_states].topic)}

    def measured() -> FloatArray:
        with Source(topics, None) as source:
            source.wait()
            return decode_joints(task, source.newest["joint states"])

    joints = measured()
    target = surface(model.bodies(joints))
    points = np.asarray(target.points)
    low, high = points.min(axis=0) - REACH_M, points.max(axis=0) + REACH_M
    table, normal = expected_plane(task, None)
    found = []
    for name in task.cameras:
        seen = seen_in(task, name, CropBox(low=low.tolist(), high=high.tolist()), CLOUDS)
        found.append(fit(name, seen[(seen - table) @ normal > ABOVE_TABLE_M], target))
    if np.abs(measured() - joints).max() > STILL_RAD:
        raise ContractError("the robot moved while it was looked at: wait until it stands still")
    return found


def sentence(error: RobotError, tolerance_m: float) -> str:
    """What was found of one camera, with a figure."""
    verdict = f"within {tolerance_m * 1e3:g} mm"
    if error.shift_m > tolerance_m:
        verdict = f"more than {tolerance_m * 1e3:g} mm: calibrate again"
    return (
        f"camera '{error.camera}': the robot is seen {error.shift_m * 1e3:.1f} mm and "
        f"{np.degrees(error.turn_rad):.2f}° from where its joints put it, {verdict} "
        f"({error.rms_m * 1e3:.1f} mm rms from its surface when it fits, {error.points} points)"
    )
