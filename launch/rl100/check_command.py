"""``rl100 task check`` and ``rl100 bundle check``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rl100_contracts.bundle import verify_bundle
from rl100_contracts.errors import ContractError
from rl100_contracts.task import load_task, task_folder
from rl100_control.kinematics import TargetCheck


def _table(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None)
    for key, value in rows:
        table.add_row(key, escape(value))
    Console().print(table)


def print_task(name_or_path: str) -> None:
    """Check a task and print a summary; raises ContractError."""
    task = load_task(name_or_path)
    robot = "none: targets are not checked by kinematics"
    if task.robot is not None:
        try:
            check = TargetCheck(task, task_folder(name_or_path), lambda: 0)
        except ContractError as error:
            raise ContractError(f"{name_or_path}: {error}") from None
        robot = f"{task.robot.urdf}: {check.describe()}"
    cameras = []
    for name, camera in task.cameras.items():
        mount = "fixed" if camera.mount == "fixed" else "on the tool"
        calibrated = f", calibrated {camera.calibration.date}" if camera.calibration else ""
        cameras.append(f"{name} ({mount}{calibrated})")
    seen = [f"{task.observation.state_dim} values"]
    if task.observation.cloud is not None:
        seen.append(f"{task.observation.num_points} points")
    if task.observation.image is not None:
        seen.append(f"an image of {task.observation.image.width}x{task.observation.image.height}")
    action, control = task.action, task.control
    _table(
        f"task {task.name}: valid",
        [
            ("hash", task.hash),
            ("description", " ".join(task.description.split())),
            ("control", f"{control.rate_hz:g} Hz, {control.n_action_steps} actions per decision"),
            ("observation", f"{control.n_obs_steps} frames of {' and '.join(seen)}"),
            ("cameras", ", ".join(cameras) or "none"),
            ("action", f"{action.space} of {', '.join(action.names)} on {action.command}"),
            ("robot", robot),
            ("streams", ", ".join(f"{n} ({s.topic})" for n, s in task.streams.items())),
            ("episode", f"at most {task.episode.max_steps} steps"),
        ],
    )


def print_bundle(folder: Path, task: str = "") -> None:
    """Check a bundle, with ``task`` against that task too; raises ContractError."""
    manifest = verify_bundle(folder, load_task(task) if task else None)
    rows = [
        ("task", f"{manifest.task} ({manifest.task_hash[:12]})"),
        ("stage", manifest.stage + (f", from {manifest.parent}" if manifest.parent else "")),
        ("created", manifest.created),
        ("decision", f"{manifest.n_action_steps} of {manifest.horizon} predicted actions"),
        ("denoising steps", str(manifest.denoising_steps)),
        ("export parity", f"{manifest.export_parity:.2e} of the action range"),
        ("files", f"{len(manifest.files)}, all as listed"),
        *((key, f"{value:.4g}") for key, value in manifest.metrics.items()),
    ]
    _table(f"bundle {manifest.policy_version}: valid", rows)
