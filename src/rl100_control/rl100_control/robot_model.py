"""The arm of a task as a Pinocchio model, from its URDF. No ROS in here.

Joints are angles (or lengths), float64 (n,), in the order of the task's ``joint_names``; other
joints of the URDF (a gripper's) stay at their neutral position. Poses are those of the task's
``tool_frame`` in its ``base_frame``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.robot import Robot
from rl100_contracts.task import Task

FloatArray = NDArray[np.float64]

POSITION_TOLERANCE_M = 1e-5
ROTATION_TOLERANCE_RAD = 1e-4
ITERATIONS = 40
DISTANCE_NOISE_M = 1e-6  # of the same distance, computed twice
# Largest turn of any joint in one iteration: a target far away is approached, not leapt at.
LARGEST_STEP_RAD = 0.5


def _pinocchio(task: Task) -> Any:
    try:
        import pinocchio
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ContractError(
            f"task '{task.name}' has the key robot, which needs Pinocchio ({reason}): install it "
            "(pip install pin; with apt ros-$ROS_DISTRO-pinocchio), or remove the key robot"
        ) from None
    return pinocchio


def package_folders() -> list[Path]:
    """Folders in which ROS packages may be, from AMENT_PREFIX_PATH."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(prefix) / "share" for prefix in prefixes if prefix]


def resolve(key: str, text: str, folder: Path) -> Path:
    """The file that a path of the task file means.

    Args:
        key: of the task, for the sentence.
        text: absolute, relative to ``folder``, or ``package://PACKAGE/PATH``.
        folder: of the task file.

    Raises:
        ContractError: there is no such file.
    """
    if text.endswith(".xacro"):
        raise ContractError(f"{key}: {text} is not a URDF yet: expand it with xacro")
    if text.startswith("package://"):
        inside = text.removeprefix("package://")
        for share in package_folders():
            if (share / inside).is_file():
                return share / inside
        raise ContractError(
            f"{key}: {text}: no such file in the ROS packages on AMENT_PREFIX_PATH: source the "
            "workspace that has the package, or give a path"
        )
    path = folder / text
    if not path.is_file():
        raise ContractError(f"{key}: {path}: no such file")
    return path


class RobotModel:
    """Forward and inverse kinematics, limits and self-collision of the task's arm.

    Args:
        task: with the key ``robot``.
        folder: of the task file.

    Raises:
        ContractError: Pinocchio is missing, a file cannot be read, or the URDF lacks a joint or a
            frame of the task.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        robot = task.robot
        assert robot is not None
        self._pin = _pinocchio(task)
        path = resolve("robot.urdf", robot.urdf, folder)
        model, geometry = self._read(path)
        known = [model.names[i] for i in range(1, model.njoints)]
        if missing := [name for name in task.joint_names if name not in known]:
            raise ContractError(
                f"{path}: joint '{missing[0]}' of joint_names is not there; the URDF has "
                f"{', '.join(known)}"
            )
        locked = [model.getJointId(name) for name in known if name not in task.joint_names]
        neutral = self._pin.neutral(model)
        model, geometries = self._pin.buildReducedModel(model, [geometry], locked, neutral)
        self.model, self._geometry = model, geometries[0]
        self._joints = [model.joints[model.getJointId(name)] for name in task.joint_names]
        for name, joint in zip(task.joint_names, self._joints, strict=True):
            if joint.nv != 1:
                raise ContractError(f"{path}: joint '{name}' has {joint.nv} degrees of freedom")
        self.names = tuple(task.joint_names)
        slides = [joint.shortname().startswith("JointModelP") for joint in self._joints]
        self.units = ["m" if slide else "rad" for slide in slides]
        self._velocities = np.array([joint.idx_v for joint in self._joints])
        self._frame, self._base = (self._find_frame(path, key, task) for key in ("tool", "base"))
        self._take_limits()
        self._take_pairs(robot, folder, path)
        self._data = model.createData()
        pin = self._pin
        pin.framesForwardKinematics(model, self._data, self._configuration(np.zeros(self.dim)))
        if model.frames[self._base].parentJoint != 0:
            raise ContractError(f"{path}: base_frame '{task.base_frame}' moves with the joints")
        placed = self._data.oMf[self._base]
        self._base_rotation, self._base_position = placed.rotation.copy(), placed.translation.copy()

    @property
    def dim(self) -> int:
        """Number of joints (n)."""
        return len(self.names)

    @property
    def pairs(self) -> int:
        """Number of pairs of bodies that must not touch; 0: the URDF has no such geometry."""
        return len(self._geometry.collisionPairs)

    # --- reading

    def _read(self, path: Path) -> tuple[Any, Any]:
        # package:// in the URDF itself: installed packages, then the package that the URDF is in.
        around = [parent.parent for parent in path.parents if (parent / "package.xml").is_file()]
        folders = [str(p) for p in (*package_folders(), *around, path.parent)]
        try:
            model = self._pin.buildModelFromUrdf(str(path))
            kind = self._pin.GeometryType.COLLISION
            return model, self._pin.buildGeomFromUrdf(model, str(path), kind, package_dirs=folders)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ContractError(f"{path}: not a URDF that can be used ({reason})") from None

    def _find_frame(self, path: Path, key: str, task: Task) -> int:
        name = task.tool_frame if key == "tool" else task.base_frame
        if not self.model.existFrame(name):
            links = [f.name for f in self.model.frames if f.type == self._pin.FrameType.BODY]
            raise ContractError(
                f"{path}: {key}_frame '{name}' of the task is not there; the URDF has the links "
                f"{', '.join(links)}"
            )
        return int(self.model.getFrameId(name))

    def _take_limits(self) -> None:
        self.low, self.high = np.full(self.dim, -np.inf), np.full(self.dim, np.inf)
        for i, joint in enumerate(self._joints):
            if joint.nq == 1:  # else a continuous joint, as cosine and sine
                self.low[i] = self.model.lowerPositionLimit[joint.idx_q]
                self.high[i] = self.model.upperPositionLimit[joint.idx_q]
        limits = np.asarray(self.model.velocityLimit)[self._velocities]
        # 0 and absent both mean that nobody wrote a limit.
        self.velocity = np.where(limits > 0.0, limits, np.inf)

    def _take_pairs(self, robot: Robot, folder: Path, path: Path) -> None:
        geometry, parents = self._geometry, self.model.parents
        joints = [body.parentJoint for body in geometry.geometryObjects]
        for first, second in itertools.combinations(range(len(joints)), 2):
            a, b = joints[first], joints[second]
            # Neighbours in the chain touch at their joint by design.
            if a != b and parents[a] != b and parents[b] != a:
                geometry.addCollisionPair(self._pin.CollisionPair(first, second))
        if robot.srdf is not None:
            srdf = resolve("robot.srdf", robot.srdf, folder)
            try:
                self._pin.removeCollisionPairs(self.model, geometry, str(srdf), False)
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ContractError(f"{srdf}: not an SRDF of {path.name} ({reason})") from None
        self._geometry_data = geometry.createData()
        for request in self._geometry_data.collisionRequests:
            request.security_margin = robot.collision_margin

    # --- kinematics

    def _configuration(self, joints: FloatArray) -> FloatArray:
        """Pinocchio's vector: a continuous joint is a cosine and a sine there."""
        q = np.empty(self.model.nq)
        for joint, value in zip(self._joints, joints, strict=True):
            i = joint.idx_q
            if joint.nq == 1:
                q[i] = value
            else:
                q[i], q[i + 1] = np.cos(value), np.sin(value)
        return q

    def forward(self, joints: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Tool position (3,), m, and unit quaternion (x, y, z, w) of joints (n,), base frame."""
        self._pin.forwardKinematics(self.model, self._data, self._configuration(joints))
        placed = self._pin.updateFramePlacement(self.model, self._data, self._frame)
        turned = self._base_rotation.T @ placed.rotation
        position = self._base_rotation.T @ (placed.translation - self._base_position)
        return position, self._pin.Quaternion(turned).coeffs()

    def bodies(self, joints: FloatArray) -> list[tuple[str, Any, FloatArray]]:
        """Collision bodies at joints (n,): name, Coal geometry, pose (4, 4) in the base frame."""
        pin, data, geometry = self._pin, self._geometry_data, self._geometry
        configuration = self._configuration(joints)
        pin.updateGeometryPlacements(self.model, self._data, geometry, data, configuration)
        base = pin.SE3(self._base_rotation, self._base_position)
        return [
            (body.name, body.geometry, base.actInv(placed).homogeneous)
            for body, placed in zip(geometry.geometryObjects, data.oMg, strict=True)
        ]

    def inverse(
        self,
        position: FloatArray,
        quaternion_xyzw: FloatArray | None,
        seed: FloatArray,
        axes: Sequence[int] = (0, 1, 2),
    ) -> FloatArray | None:
        """Joints (n,) near ``seed`` that bring the tool to a pose, by damped least squares.

        Limits are not heeded: the caller says which one is in the way.

        Args:
            position: (3,), m, base frame.
            quaternion_xyzw: (4,), unit; None: any orientation will do.
            seed: joints (n,) to start from.
            axes: which of x, y, z matter.

        Returns:
            None when the pose is not reached within the tolerances.
        """
        pin, joints, rows = self._pin, seed.copy(), list(axes)
        wanted = None
        if quaternion_xyzw is not None:
            wanted = pin.Quaternion(np.asarray(quaternion_xyzw)).matrix()
        into_base = self._base_rotation.T
        aligned = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        for _ in range(ITERATIONS):
            configuration = self._configuration(joints)
            pin.computeJointJacobians(self.model, self._data, configuration)
            placed = pin.updateFramePlacement(self.model, self._data, self._frame)
            here = into_base @ (placed.translation - self._base_position)
            error = (position - here)[rows]
            reached = float(np.linalg.norm(error)) < POSITION_TOLERANCE_M
            if wanted is not None:
                turn = pin.log3(wanted @ (into_base @ placed.rotation).T)
                reached = reached and float(np.linalg.norm(turn)) < ROTATION_TOLERANCE_RAD
                error = np.concatenate([error, turn])
            if reached:
                return joints
            full = pin.getFrameJacobian(self.model, self._data, self._frame, aligned)
            jacobian = (into_base @ full[:3])[rows]
            if wanted is not None:
                jacobian = np.concatenate([jacobian, into_base @ full[3:]])
            jacobian = jacobian[:, self._velocities]
            # Damping that vanishes with the error: quadratic near the end, tame far away.
            damping = 1e-2 * float(error @ error) + 1e-9
            square = jacobian @ jacobian.T + damping * np.eye(len(error))
            step = jacobian.T @ np.linalg.solve(square, error)
            joints = joints + step * min(1.0, LARGEST_STEP_RAD / max(np.abs(step).max(), 1e-12))
        return None

    def collision(self, joints: FloatArray, here: FloatArray) -> str:
        """A pair of links that would touch (margin included), e.g. "forearm and base_link".

        Args:
            joints: (n,), of the target.
            here: (n,), where the arm is. Pairs that touch there already and come no closer do not
                count, or an arm that was parked too tightly could never leave.
        """
        if not self.pairs or not self._touching(joints, first=True):
            return ""
        touching = self._touching(joints)
        there, now = self._distances(joints, touching), self._distances(here, touching)
        margins = [self._geometry_data.collisionRequests[i].security_margin for i in touching]
        for index, after, before, margin in zip(touching, there, now, margins, strict=True):
            if before > margin or after < before - DISTANCE_NOISE_M:
                pair = self._geometry.collisionPairs[index]
                return " and ".join(self._link(i) for i in (pair.first, pair.second))
        return ""

    def _touching(self, joints: FloatArray, *, first: bool = False) -> list[int]:
        """Indices of the pairs that touch; ``first``: whether there are any (quicker)."""
        data, geometry = self._geometry_data, self._geometry
        configuration = self._configuration(joints)
        if not self._pin.computeCollisions(
            self.model, self._data, geometry, data, configuration, first
        ):
            return []
        return [i for i, result in enumerate(data.collisionResults) if result.isCollision()]

    def _distances(self, joints: FloatArray, pairs: list[int]) -> list[float]:
        """Distance of each pair, m; negative where the links overlap."""
        pin, data, geometry = self._pin, self._geometry_data, self._geometry
        configuration = self._configuration(joints)
        pin.updateGeometryPlacements(self.model, self._data, geometry, data, configuration)
        return [float(pin.computeDistance(geometry, data, i).min_distance) for i in pairs]

    def _link(self, geometry: int) -> str:
        frame = self._geometry.geometryObjects[geometry].parentFrame
        return f"{self.model.frames[frame].name}"
