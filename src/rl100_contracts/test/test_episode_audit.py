"""Pins what the audit of an episode names: streams that are silent, gaps, missing stamps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl100_contracts.episode import EpisodeReader, Outcome, required_topics
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.task import Task
from rl100_contracts.testing import PERIOD, RATED, START, fill, header

pytestmark = pytest.mark.usefixtures("definitions")


def test_audit_names_what_was_lost(tmp_path: Path, task: Task) -> None:
    silent = EpisodeWriter(tmp_path, "silent", task)
    fill(silent, skip=("points",))
    info = silent.finish(Outcome.SUCCESS, "test", 20)
    assert not info.complete
    assert info.problems == ["no message on /rl100/points"]
    assert info.audit["/rl100/points"].received == 0
    assert info.audit["/rl100/points"].expected == 19
    assert info.audit["/rl100/policy_step"].expected is None

    gap = EpisodeWriter(tmp_path, "gap", task)
    late = EpisodeWriter(tmp_path, "late", task)
    for tick in range(400):
        for name in RATED:
            stamp = START + tick * PERIOD
            if not (name == "depth" and 200 <= tick < 206):
                gap.write(name, stamp, header(stamp))
            if not (name == "tool_pose" and tick >= 390):
                late.write(name, stamp, header(stamp))
    # Both lose fewer messages than the allowed fraction, but in one piece.
    assert gap.finish(Outcome.SUCCESS, "test", 400).problems == [
        "/camera/depth/image_rect_raw: a gap of 0.35 s"
    ]
    assert late.finish(Outcome.SUCCESS, "test", 400).problems == ["/tool_pose: a gap of 0.50 s"]


def test_audit_tells_missing_stamps_from_missing_messages(tmp_path: Path, task: Task) -> None:
    writer = EpisodeWriter(tmp_path, "zero", task)
    fill(writer, skip=("points",))
    for tick in range(20):
        writer.write("points", START + tick, header(0))
    info = writer.finish(Outcome.SUCCESS, "test", 20)
    assert info.problems == ["/rl100/points: 20 messages without a stamp in their header"]
    assert info.start_ns == START


def test_empty_episode_is_kept_but_not_complete(tmp_path: Path, task: Task) -> None:
    info = EpisodeWriter(tmp_path, "empty", task).finish(Outcome.UNKNOWN, "interrupted", 0)
    assert info.problems == [f"no message on {topic}" for topic in required_topics(task)]
    with EpisodeReader(tmp_path / "empty", task) as reader:
        assert list(reader.messages()) == []
