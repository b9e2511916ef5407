"""Windows over episodes: padding past the end, masks, whole episodes held out, clear refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_trainer.data.dataset import EpisodeArrays, make_windows, segments, split_episodes
from rl100_trainer.spec import PolicySpec


def test_windows_slide_and_pad(task: Task, episodes: list[EpisodeArrays]) -> None:
    spec = PolicySpec.of_task(task)
    windows = make_windows(episodes[:2], spec, 4)
    assert len(windows) == 24
    np.testing.assert_array_equal(windows.actions[3], episodes[0].actions[3:7])
    assert windows.valid[10].tolist() == [True, True, False, False]
    assert windows.actions[10, 2:].abs().max() == 0.0
    absolute = make_windows(episodes[:1], dataclasses.replace(spec, action_is_delta=False), 4)
    np.testing.assert_array_equal(absolute.actions[11, 3], episodes[0].actions[11])
    assert windows.episode.tolist() == [0] * 12 + [1] * 12


def test_windows_do_not_cross_a_gap(task: Task, episodes: list[EpisodeArrays]) -> None:
    stamps = episodes[0].stamps.copy()
    stamps[5:] += 200_000_000
    segment = segments(stamps, task.control.period_ns)
    assert segment.tolist() == [0] * 5 + [1] * 7
    cut = dataclasses.replace(episodes[0], stamps=stamps, segment=segment)
    windows = make_windows([cut], PolicySpec.of_task(task), 4)
    assert windows.valid[3].tolist() == [True, True, False, False]
    assert windows.valid[5].all()


def test_held_out_episodes_are_whole(task: Task, episodes: list[EpisodeArrays]) -> None:
    windows = make_windows(episodes, PolicySpec.of_task(task), 4)
    train, held = split_episodes(windows, 0.34, torch.Generator().manual_seed(0))
    assert held is not None
    assert len(set(held.episode.tolist())) == 2
    assert not set(held.episode.tolist()) & set(train.episode.tolist())
    assert len(train) + len(held) == len(windows)


def test_wrong_shapes_name_the_episode(task: Task, episodes: list[EpisodeArrays]) -> None:
    wrong = dataclasses.replace(episodes[0], clouds=episodes[0].clouds[:, :, :8])
    with pytest.raises(ContractError, match="episode0: clouds have shape"):
        make_windows([wrong], PolicySpec.of_task(task), 4)
    with pytest.raises(ContractError, match="no episode"):
        make_windows([], PolicySpec.of_task(task), 4)
