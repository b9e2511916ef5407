"""The layouts for RViz and Foxglove show topics that there are, as the messages that they carry.

Pins: each topic is in the reference of topics, or a stream of a built-in task, with the message
type that its display shows; each field that is plotted exists; panels and layout fit together; both
files are installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl100_contracts.task import builtin_tasks, load_task

ROOT = Path(__file__).parents[2]
RVIZ, FOXGLOVE = (
    ROOT / "launch" / "rviz" / "rl100.rviz",
    ROOT / "launch" / "foxglove" / "rl100.json",
)

RVIZ_TYPES = {
    "rviz_default_plugins/PointCloud2": "sensor_msgs/PointCloud2",
    "rviz_default_plugins/Pose": "geometry_msgs/PoseStamped",
    "rviz_default_plugins/Image": "sensor_msgs/Image",
}
WITHOUT_TOPIC = {f"rviz_default_plugins/{name}" for name in ("Grid", "Axes", "TF")}


def documented() -> dict[str, str]:
    """Topics of the reference and their types."""
    found: dict[str, str] = {}
    text = (ROOT / "docs" / "reference" / "topics.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 3:
            continue
        topics = re.findall(r"/[a-z0-9_/]+[a-z0-9]", cells[0])
        types = re.findall(r"`([A-Za-z0-9_/]+)`", cells[1])
        for topic, kind in zip_longest(topics, types, fillvalue=""):
            package = types[0].split("/")[0] if types else ""
            found[topic] = kind if "/" in kind else f"{package}/{kind}"
    return found


def known() -> dict[str, str]:
    """All topics and their types, ``package/Name``."""
    found = documented()
    for name in builtin_tasks():
        for stream in load_task(name).streams.values():
            found[stream.topic] = stream.type.replace("/msg/", "/")
    return found


def test_the_reference_is_read() -> None:
    topics = documented()
    assert topics["/rl100/points"] == "sensor_msgs/PointCloud2"
    assert topics["/camera/depth/camera_info"] == "sensor_msgs/CameraInfo"
    assert topics["/rl100/points_cropped"] == "sensor_msgs/PointCloud2"


def test_rviz_shows_what_there_is() -> None:
    config = yaml.safe_load(RVIZ.read_text(encoding="utf-8"))
    manager, topics = config["Visualization Manager"], known()
    shown = set()
    for display in manager["Displays"]:
        kind = display["Class"]
        if kind in WITHOUT_TOPIC:
            assert "Topic" not in display
            continue
        topic = display["Topic"]["Value"]
        assert topics.get(topic) == RVIZ_TYPES[kind], topic
        # Best effort hears every publisher; images and clouds are not to be sent again.
        assert display["Topic"]["Reliability Policy"] == "Best Effort"
        assert display["Enabled"] == display["Value"]
        shown.add(topic)
    assert {"/rl100/points", "/rl100/points_cropped"} <= shown
    assert manager["Global Options"]["Fixed Frame"] == load_task("push").base_frame


def strings(value: Any) -> Iterator[str]:
    """All strings of a JSON value, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def leaves(layout: Any) -> Iterator[str]:
    """The panels of a Foxglove layout."""
    if isinstance(layout, str):
        yield layout
    else:
        assert layout["direction"] in ("row", "column")
        yield from leaves(layout["first"])
        yield from leaves(layout["second"])


def test_foxglove_shows_what_there_is() -> None:
    layout, topics = json.loads(FOXGLOVE.read_text(encoding="utf-8")), known()
    panels = layout["configById"]
    assert sorted(leaves(layout["layout"])) == sorted(panels)
    paths = [text for text in strings(panels) if text.startswith("/")]
    assert len(paths) > 8
    for path in paths:
        assert path.split(".")[0] in topics, path
    scene = panels["3D!cloud"]["topics"]
    types = {"sensor_msgs/PointCloud2", "geometry_msgs/PoseStamped"}
    assert {topics[topic] for topic in scene} == types
    for panel, config in panels.items():
        if panel.startswith("Image!"):
            assert topics[config["imageMode"]["imageTopic"]] == "sensor_msgs/Image"
            assert topics[config["imageMode"]["calibrationTopic"]] == "sensor_msgs/CameraInfo"


def test_what_foxglove_plots_is_in_the_messages() -> None:
    pytest.importorskip("rl100_msgs")
    from rl100_node.messages import message_class

    panels, topics = json.loads(FOXGLOVE.read_text(encoding="utf-8"))["configById"], known()
    plotted = [
        path["value"]
        for panel, config in panels.items()
        if panel.startswith("Plot!")
        for path in config["paths"]
    ]
    assert plotted
    for path in plotted:
        topic, field = re.fullmatch(r"(/[a-z0-9_/]+)\.([a-z_]+)\[\d+\]", path).groups()  # type: ignore[union-attr]
        kind = message_class("/msg/".join(topics[topic].split("/")))
        assert kind.get_fields_and_field_types()[field].startswith("sequence<"), path


@pytest.mark.parametrize("file", [RVIZ, FOXGLOVE])
def test_the_layouts_are_installed(file: Path) -> None:
    pytest.importorskip("ament_index_python")
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        share = Path(get_package_share_directory("rl100"))
    except PackageNotFoundError:
        pytest.skip("the workspace is not sourced")
    installed = share / file.parent.name / file.name
    assert installed.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
