"""Pins the episode contract: what is written is what came, byte for byte and for every reader; a
crash leaves whole episodes or nothing; damage and mix-ups give one sentence; nothing is rewritten.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts import episode_writer
from rl100_contracts.decode import decode_executed, message_stamp_ns
from rl100_contracts.episode import (
    EpisodeReader,
    Outcome,
    check_episode,
    list_episodes,
    load_episode_info,
    unfinished_episodes,
)
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import ensure_type, has_header
from rl100_contracts.task import Task, load_task
from rl100_contracts.testing import PERIOD, RATED, START, fill, header, make, record

pytestmark = pytest.mark.usefixtures("definitions")
# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MESSAGES = Path(__file__).resolve().parents[2] / "rl100_msgs" / "msg"


def test_written_episode_reads_back(tmp_path: Path, task: Task) -> None:
    writer = EpisodeWriter(tmp_path, "one", task, note="first", seed=7)
    fill(writer)
    assert unfinished_episodes(tmp_path) == [tmp_path / ".partial" / "one"]
    assert list_episodes(tmp_path) == []
    info = writer.finish(Outcome.SUCCESS, "keyboard", 20, "v3", "policy", START + 19 * PERIOD)
    assert unfinished_episodes(tmp_path) == []
    assert list_episodes(tmp_path) == [tmp_path / "one"] == list_episodes(tmp_path / "one")
    assert load_episode_info(tmp_path / "one") == info
    assert info.complete and info.problems == []
    assert (info.note, info.seed, info.steps) == ("first", 7, 20)
    assert info.label_ns == START + 19 * PERIOD
    assert info.duration_s == pytest.approx(19 / 20)
    with EpisodeReader(tmp_path / "one", task) as reader:
        names = [name for name, _ in reader.messages()]
        assert names == list(RATED) * 20
        stamps = [message_stamp_ns(m) for _, m in reader.messages(["executed_action"])]
        assert stamps == [START + tick * PERIOD for tick in range(20)]


def test_payloads_are_identical_in_two_independent_readers(tmp_path: Path, task: Task) -> None:
    from mcap.reader import make_reader
    from rosbags.rosbag2 import Reader

    random = np.random.default_rng(0)
    written: list[tuple[str, int, bytes]] = []
    writer = EpisodeWriter(tmp_path, "bytes", task)
    for index in range(60):
        for name in RATED:
            # 40 kB each: the bag gets several chunks.
            data = header(START + index * PERIOD, random.bytes(int(random.integers(0, 40_000))))
            received = START + len(written)
            writer.write(name, received, data)
            written.append((task.streams[name].topic, received, data))
    writer.finish(Outcome.UNKNOWN, "", 0)
    with Reader(tmp_path / "bytes") as bag:
        by_rosbags = [(c.topic, stamp, bytes(data)) for c, stamp, data in bag.messages()]
    with (tmp_path / "bytes" / "bytes.mcap").open("rb") as file:
        by_mcap = [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in make_reader(file).iter_messages()
        ]
    assert by_rosbags == written
    assert by_mcap == written


def test_own_messages_decode_without_this_workspace(tmp_path: Path, task: Task) -> None:
    """The bag carries the definitions: mcap-ros2-support knows nothing of rl100_msgs."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    time_type = ensure_type("builtin_interfaces/msg/Time").types["builtin_interfaces/msg/Time"]
    chunk = make(
        "rl100_msgs/msg/ActionChunk",
        START,
        sequence=2**40 + 1,
        source="policy",
        action_dim=2,
        actions=np.array([0.5, -1.5, 2.5, 3.5], dtype=np.float32),
        action_stamps=[time_type(sec=3, nanosec=4), time_type(sec=5, nanosec=6)],
        expires=time_type(sec=7, nanosec=8),
    )
    executed = make(
        "rl100_msgs/msg/ExecutedAction",
        START,
        mode=2,
        source="policy",
        action=np.array([0.25, -0.25], dtype=np.float32),
        target=np.array([1.0, 2.0]),
    )
    writer = EpisodeWriter(tmp_path, "own", task)
    writer.write("action_chunk", 1, chunk)
    writer.write("executed_action", 2, executed)
    writer.finish(Outcome.UNKNOWN, "", 1)
    with (tmp_path / "own" / "own.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        found = [message for _, _, _, message in reader.iter_decoded_messages()]
    assert found[0].sequence == 2**40 + 1
    assert list(found[0].actions) == [0.5, -1.5, 2.5, 3.5]
    assert [(t.sec, t.nanosec) for t in found[0].action_stamps] == [(3, 4), (5, 6)]
    assert (found[0].expires.sec, found[0].header.stamp.sec) == (7, 1_000)
    step = decode_executed(found[1])
    assert (step.mode, step.source, step.stamp_ns) == (2, "policy", START)
    np.testing.assert_array_equal(step.action, np.array([0.25, -0.25], dtype=np.float32))


def test_metadata_is_what_rosbag2_expects(tmp_path: Path, task: Task) -> None:
    from mcap.reader import make_reader

    path = record(tmp_path, "meta", task)
    meta = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (meta["version"], meta["storage_identifier"]) == (9, "mcap")
    assert meta["relative_file_paths"] == ["meta.mcap"]
    assert meta["message_count"] == 120
    topics = {t["topic_metadata"]["name"]: t for t in meta["topics_with_message_count"]}
    assert set(topics) == {stream.topic for stream in task.streams.values()}
    entry = topics["/tool_pose"]["topic_metadata"]
    assert (entry["type"], entry["serialization_format"]) == (
        "geometry_msgs/msg/PoseStamped",
        "cdr",
    )
    assert entry["offered_qos_profiles"][0]["reliability"] == "reliable"
    assert entry["type_description_hash"].startswith("RIHS01_")
    with (path / "meta.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None and summary.statistics is not None
    assert summary.statistics.message_count == 120
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    own = next(s for s in summary.schemas.values() if s.name == "rl100_msgs/msg/ActionChunk")
    assert b"MSG: builtin_interfaces/Time" in own.data and b"MSG: std_msgs/Header" in own.data


def test_type_hashes_equal_those_that_ros_computes() -> None:
    """rosidl writes its hash beside each built interface; bags must carry the same one."""
    compared = 0
    for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep):
        for file in Path(prefix).glob("share/rl100_msgs/msg/*.json"):
            name = f"rl100_msgs/msg/{file.stem}"
            source = MESSAGES / f"{file.stem}.msg"
            if file.with_suffix(".msg").read_bytes() != source.read_bytes():
                continue  # built from an older source
            built = json.loads(file.read_text())["type_hashes"]
            expected = {entry["type_name"]: entry["hash_string"] for entry in built}[name]
            assert ensure_type(name).hash_rihs01(name) == expected
            compared += 1
    if not compared:
        pytest.skip("the workspace's interfaces aren't built here")


def test_bag_with_an_older_definition_stays_readable(tmp_path: Path, task: Task) -> None:
    """A message type that grew since: the bag is read by the definition that it carries."""
    script = """
import struct, sys
from pathlib import Path
from rl100_contracts.episode import Outcome
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.task import load_task
writer = EpisodeWriter(Path(sys.argv[1]), "old", load_task("push"))
writer.write("reward", 1, b"\\0\\1\\0\\0" + struct.pack("<iII", 5, 6, 1) + b"\\0" + bytes(3)
             + struct.pack("<f", 0.5))
writer.finish(Outcome.UNKNOWN, "", 0)
"""
    older = tmp_path / "prefix" / "share" / "rl100_msgs" / "msg"
    shutil.copytree(MESSAGES, older)
    (older / "RewardEvent.msg").write_text("std_msgs/Header header\nfloat32 value\n")
    environment = dict(os.environ, AMENT_PREFIX_PATH=str(tmp_path / "prefix"))
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    with EpisodeReader(tmp_path / "old", task) as reader:
        ((name, message),) = list(reader.messages())
    assert name == "reward" and message.value == 0.5 and not hasattr(message, "labeller")


def test_truncated_bag_is_one_sentence(tmp_path: Path, task: Task) -> None:
    path = record(tmp_path, "cut", task)
    bag = path / "cut.mcap"
    bag.write_bytes(bag.read_bytes()[:-100])
    with pytest.raises(ContractError, match=r"cut\.mcap: the bag is damaged \(cut off\?\)"):
        EpisodeReader(path, task).__enter__()
    bag.unlink()
    with pytest.raises(ContractError, match="the bag of the episode is missing"):
        EpisodeReader(path, task).__enter__()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A short episode and the bytes of its bag."""
    path = record(tmp_path_factory.mktemp("damage"), "flip", load_task("push"), ticks=3)
    return path, (path / "flip.mcap").read_bytes()


@settings(UNHURRIED, max_examples=60)
@given(data=st.data())
def test_damaged_bytes_never_escape_as_a_traceback(
    recorded: tuple[Path, bytes], data: st.DataObject
) -> None:
    """Bytes flipped anywhere in a bag of the right length: messages or a ContractError."""
    path, content = recorded[0], bytearray(recorded[1])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    (path / "flip.mcap").write_bytes(content)
    try:
        with EpisodeReader(path, load_task("push")) as reader:
            for _ in reader.messages():
                pass
    except ContractError as error:
        assert "flip" in str(error) and "\n" not in str(error)


def test_check_finds_any_changed_byte(tmp_path: Path, task: Task) -> None:
    path = record(tmp_path, "whole", task, ticks=3)
    assert check_episode(path, task) == load_episode_info(path)
    bag = path / "whole.mcap"
    content = bytearray(bag.read_bytes())
    random = np.random.default_rng(0)
    for place in random.integers(0, len(content), 20):
        changed = bytearray(content)
        changed[place] ^= 1
        bag.write_bytes(changed)
        with pytest.raises(ContractError, match="whole"):
            check_episode(path)
    bag.write_bytes(content)
    described = json.loads((path / "episode.json").read_text())
    described["audit"]["/tool_pose"]["received"] += 1
    (path / "episode.json").write_text(json.dumps(described))
    with pytest.raises(ContractError, match="3 messages on /tool_pose instead of 4"):
        check_episode(path)


def test_wrong_task_is_refused(tmp_path: Path, task: Task) -> None:
    path = record(tmp_path, "mine", task)
    other = task.model_copy(update={"name": "pour"})
    with pytest.raises(ContractError, match="recorded for task 'push', not for 'pour'"):
        EpisodeReader(path, other).__enter__()
    with pytest.raises(ContractError, match="a task is needed"), EpisodeReader(path) as reader:
        next(reader.messages())


def test_episodes_are_never_overwritten(tmp_path: Path, task: Task) -> None:
    path = record(tmp_path, "kept", task)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ContractError, match="never overwritten"):
        EpisodeWriter(tmp_path, "kept", task)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    running = EpisodeWriter(tmp_path, "running", task)
    with pytest.raises(ContractError, match="never overwritten"):
        EpisodeWriter(tmp_path, "running", task)
    # Someone made an episode of the same name meanwhile: the rename must not replace it.
    shutil.copytree(path, tmp_path / "running")
    fill(running)
    with pytest.raises(ContractError, match="cannot be finished"):
        running.finish(Outcome.SUCCESS, "test", 20)
    assert load_episode_info(tmp_path / "running").episode_id == "kept"
    assert unfinished_episodes(tmp_path) == [tmp_path / ".partial" / "running"]


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a b", "x" * 129])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, task: Task, name: str) -> None:
    with pytest.raises(ContractError, match="cannot name an episode"):
        EpisodeWriter(tmp_path / "data", name, task)
    assert list(tmp_path.iterdir()) == []


def test_types_that_cannot_be_recorded_leave_nothing(tmp_path: Path, task: Task) -> None:
    for msgtype, sentence in (
        ("std_msgs/msg/Float64MultiArray", "does not start with a header"),
        ("nowhere_msgs/msg/Thing", "is unknown: build and source"),
    ):
        stream = task.streams["reward"].model_copy(update={"type": msgtype})
        broken = task.model_copy(update={"streams": {**task.streams, "reward": stream}})
        with pytest.raises(ContractError, match=sentence):
            EpisodeWriter(tmp_path / "data", "x", broken)
    assert list(tmp_path.iterdir()) == []
    assert has_header("sensor_msgs/msg/Joy") and not has_header("builtin_interfaces/msg/Time")


def test_discard_deletes_only_this_episode(tmp_path: Path, task: Task) -> None:
    kept = record(tmp_path, "kept", task)
    writer = EpisodeWriter(tmp_path, "gone", task)
    fill(writer, ticks=3)
    writer.discard()
    assert unfinished_episodes(tmp_path) == []
    assert list_episodes(tmp_path) == [kept]


STEPS = ("write_json_atomic", "sync", "os.rename")


@pytest.mark.parametrize("step", STEPS)
def test_crash_between_the_steps_of_finishing(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Wherever the process dies before the rename, the episode shows only as unfinished."""

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    kept = record(tmp_path, "before", task)
    writer = EpisodeWriter(tmp_path, "crashed", task)
    fill(writer)
    target: object = os if step.startswith("os.") else episode_writer
    monkeypatch.setattr(target, step.removeprefix("os."), die)
    with pytest.raises(Died):
        writer.finish(Outcome.SUCCESS, "test", 20)
    monkeypatch.undo()
    assert list_episodes(tmp_path) == [kept]
    assert unfinished_episodes(tmp_path) == [tmp_path / ".partial" / "crashed"]


def test_full_disc_is_one_sentence(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = EpisodeWriter(tmp_path, "full", task)
    fill(writer, ticks=2)
    monkeypatch.setattr(writer._writer.storage, "write", full)
    with pytest.raises(ContractError, match=r"full: cannot be written \(No space left on device\)"):
        fill(writer, ticks=1)
    writer.abandon()
    writer.abandon()
    assert list_episodes(tmp_path) == []


def test_manifest_cannot_point_outside_its_folder(tmp_path: Path, task: Task) -> None:
    path = record(tmp_path, "moved", task)
    content = json.loads((path / "episode.json").read_text())
    for name in ("../moved/moved.mcap", ".hidden"):
        (path / "episode.json").write_text(json.dumps({**content, "bag_file": name}))
        with pytest.raises(ContractError, match="bag_file must be a file name"):
            load_episode_info(path)
