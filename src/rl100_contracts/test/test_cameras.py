"""Cameras of a task: a calibration file is resolved when the task is loaded.

Pins: the pose, date and hash of the file stand in the loaded task, which then needs no file, in a
bundle's folder or anywhere; another calibration is another task; a file of another camera, mount or
frame is refused in one sentence; a turned crop box, a plane and voxels survive the way to YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rl100_contracts.calibration import CameraCalibration, Residuals, save_calibration
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task, load_task


def calibration(**changed: Any) -> CameraCalibration:
    values: dict[str, Any] = {
        "camera": "table",
        "frame": "camera_depth_optical_frame",
        "mount": "fixed",
        "parent_frame": "base_link",
        "position": [0.5, 0.1, 0.7],
        "quaternion_xyzw": [1.0, 0.0, 0.0, 0.0],
        "date": "2026-01-31T12:00:00Z",
        "method": "park",
        "views": 12,
        "residuals": Residuals(translation_mm=0.4, rotation_deg=0.05, reprojection_px=0.2),
        **changed,
    }
    return CameraCalibration(**values)


def task_file(folder: Path, **camera: Any) -> Path:
    """A task file whose camera has the keys of ``camera``; None leaves one out."""
    data = load_task("push").model_dump(mode="json")
    table = data["cameras"]["table"]
    del table["position"], table["quaternion_xyzw"]
    table.update({"calibration": "table.yaml", **camera})
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_pose_of_the_file_is_in_the_task(tmp_path: Path) -> None:
    made = calibration()
    save_calibration(made, tmp_path / "table.yaml")
    camera = load_task(task_file(tmp_path)).cameras["table"]
    assert camera.position == [0.5, 0.1, 0.7] and camera.quaternion_xyzw == [1.0, 0.0, 0.0, 0.0]
    assert camera.calibration is not None
    assert camera.calibration.hash == made.hash and camera.calibration.date == made.date


def test_a_saved_task_needs_no_calibration_file(tmp_path: Path) -> None:
    save_calibration(calibration(), tmp_path / "table.yaml")
    task = load_task(task_file(tmp_path))
    elsewhere = tmp_path / "bundle"
    elsewhere.mkdir()
    (elsewhere / "task.yaml").write_text(task.to_yaml())
    (tmp_path / "table.yaml").unlink()
    again = load_task(elsewhere / "task.yaml")
    assert again == task and again.hash == task.hash


def test_another_calibration_is_another_task(tmp_path: Path) -> None:
    save_calibration(calibration(), tmp_path / "table.yaml")
    first = load_task(task_file(tmp_path)).hash
    later = calibration(date="2026-02-01T12:00:00Z")
    save_calibration(later, tmp_path / "table.yaml", overwrite=True)
    assert load_task(tmp_path / "task.yaml").hash != first


@pytest.mark.parametrize(
    ("changed", "camera", "sentence"),
    [
        ({"mount": "tool", "parent_frame": "tool0"}, {}, "has mount tool, the task fixed"),
        ({"parent_frame": "world"}, {}, "has parent_frame world, the task base_link"),
        ({"frame": "other"}, {}, "has frame other, the task camera_depth_optical_frame"),
        ({}, {"position": [0.0, 0.0, 0.0]}, "either calibration or position, not both"),
        ({}, {"calibration": "none.yaml"}, r"none\.yaml: no such file"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, changed: dict[str, Any], camera: dict[str, Any], sentence: str
) -> None:
    save_calibration(calibration(**changed), tmp_path / "table.yaml")
    with pytest.raises(ContractError, match=sentence) as caught:
        load_task(task_file(tmp_path, **camera))
    assert "\n" not in str(caught.value)


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    save_calibration(calibration(), path)
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(ContractError, match="changed after the calibration"):
        load_task(task_file(tmp_path))


def test_everything_of_a_cloud_survives_yaml(tmp_path: Path) -> None:
    data = load_task("push").model_dump(mode="json")
    data["observation"]["cloud"] |= {
        "plane": {"point": [0.0, 0.0, 0.01], "normal": [0.0, 0.1, 1.0], "clearance": 0.004},
        "voxel_size": 0.005,
    }
    data["observation"]["cloud"]["crop"] |= {
        "position": [0.1, 0.2, 0.3],
        "quaternion_xyzw": [0.0, 0.0, 0.6, 0.8],
    }
    data["cameras"]["table"] |= {"mount": "tool", "tool_pose": "tool_pose", "edge_threshold": 0.02}
    task = Task.model_validate(data)
    path = tmp_path / "task.yaml"
    path.write_text(task.to_yaml())
    assert load_task(path) == task and load_task(path).hash == task.hash != load_task("push").hash
