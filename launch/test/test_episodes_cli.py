"""Pins ``rl100 episodes``: what is listed, what a check finds, that nothing is changed, and what
the verdicts on episodes of two policies say of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rl100.episodes_cli import app
from rl100_contracts.episode import Outcome
from rl100_contracts.episode_writer import EpisodeWriter
from rl100_contracts.errors import ContractError
from rl100_contracts.streams import Role
from rl100_contracts.task import NANOSECONDS, load_task
from rl100_contracts.testing import found_definitions

MESSAGES = Path(__file__).resolve().parents[2] / "src" / "rl100_msgs" / "msg"
TASK = load_task("push")


@pytest.fixture(autouse=True, scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The workspace's own message definitions, found as in a sourced workspace."""
    with found_definitions(MESSAGES, tmp_path_factory.mktemp("prefix")):
        yield


def record(
    data: Path, name: str, outcome: Outcome, skip: str = "", version: str = "v1", second: int = 0
) -> Path:
    writer = EpisodeWriter(data, name, TASK)
    for tick in range(20):
        stamp_ns = (100 + second) * NANOSECONDS + tick * TASK.control.period_ns
        message = b"\0\1\0\0" + struct.pack("<iI", *divmod(stamp_ns, NANOSECONDS)) + bytes(64)
        for stream, spec in TASK.streams.items():
            if spec.role is not Role.EVENT and stream != skip:
                writer.write(stream, stamp_ns, message)
    writer.finish(outcome, "ann", 20, version, "policy")
    return data / name


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two good episodes."""
    record(tmp_path, "push_1", Outcome.SUCCESS)
    record(tmp_path, "push_2", Outcome.FAILURE)
    return tmp_path


def test_list_shows_every_episode(data: Path) -> None:
    code, out, _ = run("list", data)
    assert code == 0
    first = next(line for line in out.splitlines() if line.startswith("push_1"))
    assert first.split()[:4] == ["push_1", "success", "ann", "20"]
    assert "policy v1" in first and "incomplete" not in out
    assert "2 episodes, 1 successful, 40 steps" in out


def test_list_is_not_folded_without_a_terminal(tmp_path: Path) -> None:
    name = "push_" + "x" * 100
    record(tmp_path, name, Outcome.SUCCESS)
    lines = run("list", tmp_path)[1].splitlines()
    assert len(lines) == 3 and lines[1].startswith(f"{name}  success  ann")


def test_list_as_json(data: Path) -> None:
    code, out, _ = run("list", data, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["outcome"] for row in rows] == ["success", "failure"]
    assert rows[0]["path"] == str(data / "push_1")


def test_check_of_good_episodes(data: Path) -> None:
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    assert run("check", data) == (
        0, "2 episodes: 2 good, 0 with problems, 0 unfinished\n", "",
    )  # fmt: skip
    assert run("check", data, "--task", "push")[0] == 0
    assert run("check", data / "push_1")[1].startswith("1 episodes: 1 good")
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before


def test_check_finds_damaged_incomplete_foreign_and_unfinished(data: Path, tmp_path: Path) -> None:
    record(data, "push_3", Outcome.SUCCESS, skip="depth")
    bag = data / "push_2" / "push_2.mcap"
    bag.write_bytes(bag.read_bytes()[:-10])
    EpisodeWriter(data, "push_4", TASK)
    (data / "push_5").mkdir()
    (data / "push_5" / "episode.json").write_text("{")
    code, out, _ = run("check", data)
    lines = out.splitlines()
    assert code == 1
    assert "push_2.mcap: the bag is damaged (cut off?)" in lines[0]
    assert lines[1].endswith("incomplete: no message on /camera/depth/image_rect_raw")
    assert "push_5/episode.json, line 1: not valid JSON" in lines[2]
    assert lines[3].startswith(f"{data}/.partial/push_4: unfinished")
    assert lines[4] == "4 episodes: 1 good, 3 with problems, 1 unfinished"
    assert run("list", data)[0] == 1

    other = tmp_path / "other.yaml"
    other.write_text(TASK.model_copy(update={"description": "", "name": "pour"}).to_yaml())
    assert "recorded for task 'push', not for 'pour'" in run("check", data, "--task", other)[1]
    longer = TASK.model_copy(update={"base_frame": "table"})
    other.write_text(longer.to_yaml())
    assert "recorded with another version of task 'push'" in run("check", data, "--task", other)[1]


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    for command in ("list", "check"):
        with pytest.raises(ContractError, match="no such folder of episodes"):
            run(command, tmp_path / "nowhere")


def test_two_policies_are_compared_by_their_verdicts(tmp_path: Path) -> None:
    """New and old in turns: the new one wins every pair, so that few pairs suffice."""
    for number in range(9):
        record(tmp_path, f"a{number}", Outcome.SUCCESS, version="new", second=2 * number)
        record(tmp_path, f"b{number}", Outcome.FAILURE, version="old", second=2 * number + 1)
        code, out, _ = run("compare", "new", "old", "--data", tmp_path)
        assert code == int("new: better" not in out)
        if number < 3:
            assert "no verdict yet" in out
    assert "new: better" in out and "9 " in out
    assert run("compare", "old", "new", "--data", tmp_path)[0] == 1
    assert "old: worse" in run("compare", "old", "new", "--data", tmp_path)[1]


def test_a_trial_that_is_over_keeps_what_is_no_worse(tmp_path: Path) -> None:
    verdicts = [(True, True), (True, False), (False, False), (False, True), (False, True)]
    for number, (new, old) in enumerate(verdicts):
        for version, won in (("new", new), ("old", old)):
            outcome = Outcome.SUCCESS if won else Outcome.FAILURE
            record(tmp_path, f"{version}{number}", outcome, version=version, second=number)
    record(tmp_path, "thrown_away", Outcome.DISCARDED, version="new", second=0)
    for pairs, code, words in (
        (2, 0, "no worse (1 won, 0 lost"),
        (5, 1, "not better (1 won, 2 lo"),
    ):
        found, out, _ = run("compare", "new", "old", "--data", tmp_path, "--pairs", pairs)
        assert found == code and words in out


def test_comparisons_that_make_no_sense_are_told(data: Path) -> None:
    for arguments, words in (
        (("v1", "v1"), "compared with itself"),
        (("v1", "v9"), "with the policy v9, only with v1"),
        ((data, "v1"), "holds no bundle"),
        (("v1", "no/where"), "no such folder"),
    ):
        with pytest.raises(ContractError, match=words):
            run("compare", *arguments, "--data", data)
