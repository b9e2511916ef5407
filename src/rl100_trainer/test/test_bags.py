"""Bags to arrays: the observations of the shared assembler, holds left out, damage skipped with a
sentence, a cache that gives the same and heals itself, filters and refusals; executed actions that
aren't finite values of the task's action space are refused, unless nobody executed them.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl100_contracts.episode import Outcome
from rl100_contracts.errors import ContractError
from rl100_contracts.images import view_of
from rl100_contracts.task import Task, load_task
from rl100_trainer.data.bags import read_episode, read_episodes
from rl100_trainer.data.store import load_episodes

_spec = importlib.util.spec_from_file_location("trainer_bags", Path(__file__).parent / "bags.py")
assert _spec is not None and _spec.loader is not None
bags = importlib.util.module_from_spec(_spec)
sys.modules["trainer_bags"] = bags
_spec.loader.exec_module(bags)


def test_steps_pair_actions_with_what_was_seen(tmp_path: Path, task: Task) -> None:
    episode = read_episode(bags.write_bag(tmp_path, "one", task), task)
    assert len(episode) == 12 and episode.source == "scripted"
    np.testing.assert_allclose(episode.actions[:, 1], 0.001 * np.arange(12), atol=1e-6)
    # state: two joints, tool x and y; frame 1 is the present one, frame 0 the one before.
    np.testing.assert_allclose(episode.states[:, 1, 2], 0.01 * np.arange(12), atol=1e-6)
    np.testing.assert_allclose(episode.states[1:, 0], episode.states[:-1, 1])
    np.testing.assert_array_equal(episode.clouds[1:, 0], episode.clouds[:-1, 1])
    np.testing.assert_array_equal(episode.clouds[0, 0], episode.clouds[0, 1])
    assert episode.decision.tolist() == [True, False, False, False] * 3
    assert episode.segment.tolist() == [0] * 12


def test_images_are_what_the_policy_saw(tmp_path: Path) -> None:
    rgb = load_task("push_rgb")
    spec = rgb.observation.image
    assert spec is not None
    path = bags.write_bag(tmp_path / "data", "one", rgb, seed=3)
    episode = read_episode(path, rgb)
    wanted = [view_of(bags.camera_image(tick, 3), spec) for tick in range(12)]
    assert episode.images.dtype == np.uint8
    np.testing.assert_array_equal(episode.images[:, 0], wanted)
    assert episode.clouds.shape == (12, 1, 0, 3)
    for _ in range(2):  # decoded, then from the cache
        (again,), _ = read_episodes([tmp_path / "data"], rgb, ["success"], cache=tmp_path / "cache")
        np.testing.assert_array_equal(again.images, episode.images)


def test_holds_are_nobodys_actions(tmp_path: Path, task: Task) -> None:
    episode = read_episode(bags.write_bag(tmp_path, "one", task, holds=(0, 5)), task)
    assert len(episode) == 10
    assert episode.segment.tolist() == [0] * 4 + [1] * 6
    with pytest.raises(ContractError, match="no executed action"):
        read_episode(bags.write_bag(tmp_path, "idle", task, ticks=3, holds=(0, 1, 2)), task)


def test_a_chunk_whose_first_action_came_too_late_is_a_decision(tmp_path: Path, task: Task) -> None:
    """Or its reward would be nobody's: the chunk before ends after its own actions."""
    episode = read_episode(bags.write_bag(tmp_path, "one", task, holds=(4, 8, 9)), task)
    assert np.flatnonzero(episode.decision).tolist() == [0, 4, 7] and len(episode) == 9


def test_what_is_done_from_the_verdict_on_is_left_out(tmp_path: Path, task: Task) -> None:
    whole = read_episode(bags.write_bag(tmp_path, "whole", task), task)
    judged = read_episode(bags.write_bag(tmp_path, "judged", task, label_tick=9), task)
    assert (len(whole), len(judged)) == (12, 9)
    np.testing.assert_array_equal(judged.actions, whole.actions[:9])
    assert judged.rewards[-1] == whole.rewards[-1] > 0  # the last action that had an effect


def test_damaged_bags_are_skipped_with_a_sentence(tmp_path: Path, task: Task) -> None:
    data = tmp_path / "data"
    for name in ("a", "b", "c", "d"):
        bags.write_bag(data, name, task)
    flipped = data / "d" / "d.mcap"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut, torn = data / "a" / "a.mcap", data / "b" / "b.mcap"
    cut.write_bytes(cut.read_bytes()[:-200])
    content = bytearray(torn.read_bytes())
    content[200:-200] = bytes(len(content) - 400)
    torn.write_bytes(content)
    episodes, report = read_episodes([data], task, ["success"], cache=tmp_path / "cache")
    assert [e.episode_id for e in episodes] == ["c"]
    assert report.used == 1 and len(report.skipped) == 3
    assert "a.mcap" in report.skipped[0] and "\n" not in report.skipped[0]
    assert "d.mcap" in report.skipped[2] and "bytes have changed" in report.skipped[2]
    with pytest.raises(ContractError, match=r"a\.mcap"):
        read_episodes([data], task, ["success"], strict=True)


def test_cache_gives_the_same_and_heals(tmp_path: Path, task: Task) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    bags.write_bag(data, "a", task)
    before = sorted(p.relative_to(data) for p in data.rglob("*"))
    first = read_episodes([data], task, ["success"], cache=cache)[0][0]
    (file,) = cache.iterdir()
    second = read_episodes([data], task, ["success"], cache=cache)[0][0]
    file.write_bytes(file.read_bytes()[:100])
    third = read_episodes([data], task, ["success"], cache=cache)[0][0]
    for other in (second, third):
        for name in ("states", "clouds", "actions", "stamps", "segment", "decision", "mode"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
        assert (other.outcome, other.source) == (first.outcome, first.source)
    assert sorted(p.relative_to(data) for p in data.rglob("*")) == before
    (kept,) = load_episodes(file)
    assert len(kept.actions) == 12


def test_a_new_label_needs_no_new_cache(tmp_path: Path, task: Task) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    bags.write_bag(data, "a", task)
    read_episodes([data], task, ["success"], cache=cache)
    path = data / "a" / "episode.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "outcome": "failure"}))
    (episode,), _ = read_episodes([data], task, ["failure"], cache=cache)
    assert episode.outcome == "failure"
    with pytest.raises(ContractError, match="1 with another outcome"):
        read_episodes([data], task, ["success"], cache=cache)


def test_outcomes_tasks_and_versions_are_kept_apart(tmp_path: Path, task: Task) -> None:
    bags.write_bag(tmp_path, "good", task)
    bags.write_bag(tmp_path, "bad", task, outcome=Outcome.FAILURE)
    bags.write_bag(tmp_path, "gone", task, outcome=Outcome.DISCARDED)
    values = task.model_dump()
    values["episode"]["max_steps"] = 7
    slower = Task.model_validate(values)
    bags.write_bag(tmp_path, "other", slower)
    episodes, report = read_episodes([tmp_path, tmp_path], task, ["success", "failure"])
    assert sorted(e.episode_id for e in episodes) == ["bad", "good"]
    assert report.filtered == 1
    assert len(report.skipped) == 1 and "another version of task 'push'" in report.skipped[0]
    episodes, _ = read_episodes([tmp_path], task, ["success"], other_versions=True)
    assert sorted(e.episode_id for e in episodes) == ["good", "other"]


@pytest.mark.parametrize("action", [(np.nan, 0.0), (0.0, -np.inf), (0.01, 0.0, 0.0), ()])
def test_an_action_that_the_task_does_not_know_is_refused(
    tmp_path: Path, task: Task, action: tuple[float, ...]
) -> None:
    path = bags.write_bag(tmp_path, "spoilt", task, ticks=4, actions={2: action})
    with pytest.raises(ContractError) as told:
        read_episode(path, task)
    sentence = str(told.value)
    assert str(path) in sentence and "\n" not in sentence
    assert "an executed action is not 2 finite values, as task 'push' asks for" in sentence


def test_a_spoilt_action_costs_its_own_episode_only(tmp_path: Path, task: Task) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    bags.write_bag(data, "good", task, ticks=4)
    bags.write_bag(data, "spoilt", task, ticks=4, actions={2: (0.0, np.inf)})
    for _ in range(2):  # it doesn't come back from the cache either
        episodes, report = read_episodes([data], task, ["success"], cache=cache)
        assert [e.episode_id for e in episodes] == ["good"]
        assert len(report.skipped) == 1 and "spoilt: an executed action" in report.skipped[0]
    with pytest.raises(ContractError, match="not 2 finite values"):
        read_episodes([data], task, ["success"], cache=cache, strict=True)


@pytest.mark.parametrize("nobody", [{"holds": (2,)}, {"label_tick": 2}])
def test_what_nobody_executed_may_be_anything(
    tmp_path: Path, task: Task, nobody: dict[str, Any]
) -> None:
    """Ticks that are left out spoil nothing: the gateway held, or the verdict was there."""
    path = bags.write_bag(tmp_path, "one", task, ticks=4, actions={2: (np.nan, 0.0)}, **nobody)
    assert np.isfinite(read_episode(path, task).actions).all()


def test_a_recording_of_another_action_space_is_refused(tmp_path: Path, task: Task) -> None:
    """Which --other-task-versions lets through: an axis more, and all actions are too short."""
    data = tmp_path / "data"
    bags.write_bag(data, "flat", task, ticks=4)
    values = task.model_dump()
    values["action"] |= {"names": ["x", "y", "z"], "low": [-0.03] * 3, "high": [0.03] * 3}
    values["action"]["fixed_position"] = {}
    for name in ("position_low", "position_high", "velocity", "acceleration", "jerk"):
        values["limits"][name] = [*values["limits"][name], values["limits"][name][-1]]
    spatial = Task.model_validate(values)
    with pytest.raises(ContractError, match="another version of task 'push'"):
        read_episodes([data], spatial, ["success"])
    with pytest.raises(ContractError, match="not 3 finite values, as task 'push' asks for"):
        read_episodes([data], spatial, ["success"], other_versions=True)


def test_missing_folder_is_a_sentence(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ContractError, match="no such folder of episodes"):
        read_episodes([tmp_path / "nothing"], task, ["success"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContractError, match="0 found"):
        read_episodes([tmp_path / "empty"], task, ["success"])
