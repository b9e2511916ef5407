"""Augmentation of training observations.

Pins: with the defaults a cloud is left bit for bit as it was, and no random number is drawn for
it; a displacement is rigid, the same in all frames, within its bounds; dropout and cut-out keep the
number of points and make up none, and the cut-out is a hole; colours change alike in all frames by
the factors that were asked for; a seed gives the same batch; training with all of it on, and
resumed in the middle, gives the policy of a run without interruption.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rl100_contracts.errors import ContractError, Interrupted
from rl100_trainer.checkpoint import load_tensors
from rl100_trainer.config import AugmentationConfig, load_config
from rl100_trainer.data.augmentation import (
    augmented,
    cut_out,
    displaced,
    jittered,
    recoloured,
    thinned,
)
from rl100_trainer.networks.images import shifted
from rl100_trainer.stages.imitation import train_imitation
from rl100_trainer.testing import SEEN_REACH_TASK, reach_demonstrations

ALL = AugmentationConfig(
    image_color=0.3,
    cloud_jitter=0.002,
    cloud_dropout=0.3,
    camera_error=[0.01, 3.0],
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(batch: int = 20, frames: int = 2, count: int = 60) -> Tensor:
    return torch.rand(batch, frames, count, 3, generator=seeded(7)) - 0.5


def images(batch: int = 12, frames: int = 2) -> Tensor:
    # Mild colours, so that nothing is clipped.
    return torch.randint(80, 150, (batch, frames, 16, 24, 3), generator=seeded(8)).to(torch.uint8)


def test_off_changes_nothing_and_draws_nothing() -> None:
    states, seen = torch.rand(20, 2, 4), clouds()
    generator = seeded()
    before = generator.get_state()
    none = torch.zeros(20, 2, 0, 0, 3, dtype=torch.uint8)
    after = augmented((states, seen, none), AugmentationConfig(), generator)
    assert after[0] is states and after[1] is seen
    assert torch.equal(generator.get_state(), before)
    # By default an image is shifted, by the very numbers that it always was.
    pictures = images()
    _, _, moved = augmented((states, seen, pictures), AugmentationConfig(), seeded(3))
    assert torch.equal(moved, shifted(pictures, seeded(3)))


def test_all_on_keeps_shapes_states_and_the_seed() -> None:
    observed = torch.rand(12, 2, 4), clouds(12), images(12)
    first, second = (augmented(observed, ALL, seeded(5)) for _ in range(2))
    other = augmented(observed, ALL, seeded(6))
    assert first[0] is observed[0]
    for before, one, two in zip(observed, first, second, strict=True):
        assert one.shape == before.shape and one.dtype == before.dtype
        assert torch.equal(one, two)
    assert not torch.equal(first[1], other[1]) and not torch.equal(first[2], other[2])


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(0.0, 0.5), turn=st.floats(0.0, 0.5), seed=st.integers(0, 2**31))
def test_a_displacement_is_rigid_and_bounded(shift: float, turn: float, seed: int) -> None:
    seen = clouds(8).double()
    moved = displaced(seen, shift, turn, seeded(seed))
    # All points of all frames together are one body: every distance stays.
    before, after = (torch.cdist(c.flatten(1, 2), c.flatten(1, 2)) for c in (seen, moved))
    assert torch.allclose(before, after, atol=1e-5)
    # No mirror image: the triple product of three points keeps its sign.
    triples = [(c[:, 0, 1:4] - c[:, 0, :1]).det() for c in (seen, moved)]
    assert torch.allclose(*triples, atol=1e-5)
    middles = moved[:, -1].mean(dim=1) - seen[:, -1].mean(dim=1)
    assert middles.abs().max() <= shift + 1e-6
    centred = [c[:, -1] - c[:, -1].mean(dim=1, keepdim=True) for c in (seen, moved)]
    rotation = torch.linalg.lstsq(*centred).solution
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(dim=1) - 1.0) / 2.0
    assert torch.arccos(cosine.clamp(-1, 1)).max() <= turn + 2e-3


def test_displacements_fill_their_bounds() -> None:
    seen = clouds(500, count=10)
    moves = displaced(seen, 0.1, 0.0, seeded())[:, 0, 0] - seen[:, 0, 0]
    assert moves.abs().max() > 0.098 and moves.mean().abs() < 0.01
    assert (
        displaced(seen, 0.0, 0.2, seeded())[:, -1]
        .mean(dim=1)
        .allclose(seen[:, -1].mean(dim=1), atol=1e-5)
    )


def _origins(after: Tensor, before: Tensor) -> list[list[set[int]]]:
    """Of each observation and frame: which points are left; each must be one of before."""
    found = []
    for new, old in zip(after, before, strict=True):
        frames = []
        for points, known in zip(new, old, strict=True):
            same = (points[:, None] == known[None]).all(dim=2)
            assert same.sum(dim=1).eq(1).all()
            frames.append({int(i) for i in same.float().argmax(dim=1)})
        found.append(frames)
    return found


@pytest.mark.parametrize("method", [thinned, cut_out])
@pytest.mark.parametrize("most", [0.1, 0.5, 0.95])
def test_dropped_points_give_way_to_others(method: object, most: float) -> None:
    seen = clouds(60)
    after = method(seen, most, seeded())  # type: ignore[operator]
    left = [len(frame) for frames in _origins(after, seen) for frame in frames]
    assert min(left) >= 60 - most * 60
    assert min(left) < 60 - 0.8 * most * 60  # the bound is come close to
    assert max(left) >= 58


@pytest.mark.parametrize("method", [thinned, cut_out])
def test_what_is_left_keeps_its_order(method: object) -> None:
    """Critics take the first points of a cloud for a sample of it."""
    seen = torch.arange(2.0 * 40)[None, None, :, None].repeat(3, 2, 1, 3)
    after = method(seen, 0.5, seeded())  # type: ignore[operator]
    assert (after.diff(dim=2) >= 0.0).all()


def test_a_cut_out_is_a_hole_at_one_place() -> None:
    seen = clouds(30).clone()
    seen[:, 0] = seen[:, 1]  # nothing moves: the same hole in both frames
    after = cut_out(seen, 0.6, seeded())
    for frames, points in zip(_origins(after, seen), seen[:, 0], strict=True):
        assert frames[0] == frames[1]
        lost = sorted(set(range(60)) - frames[0])
        if not lost:
            continue
        # Around some lost point, those that are lost are nearer than all that are left.
        distance = torch.cdist(points, points)
        kept = sorted(frames[0])
        assert any(distance[c][lost].max() <= distance[c][kept].min() for c in lost)


def test_jitter_has_its_deviation() -> None:
    seen = clouds(200)
    noise = jittered(seen, 0.01, seeded()) - seen
    assert float(noise.std()) == pytest.approx(0.01, rel=0.03)
    assert noise.abs().max() <= 0.03 + 1e-6 and noise.mean().abs() < 1e-4


def test_colours_change_by_the_factors_asked_for() -> None:
    pictures = images(200)
    pictures[:, 0] = pictures[:, 1]
    changed = recoloured(pictures, 0.2, seeded()).double()
    assert torch.equal(changed[:, 0], changed[:, 1])  # alike in all frames
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    before, after = pictures.double() @ weights, changed @ weights
    # Contrast and saturation leave the mean luminance; what is left is brightness.
    brightness = after.mean(dim=(1, 2, 3)) / before.mean(dim=(1, 2, 3))
    assert brightness.min() >= 0.795 and brightness.max() <= 1.205
    assert brightness.max() > 1.15 and brightness.min() < 0.85
    contrast = after.std(dim=(1, 2, 3)) / before.std(dim=(1, 2, 3)) / brightness
    assert contrast.min() >= 0.78 and contrast.max() <= 1.22 and contrast.std() > 0.05
    colour = changed - after[..., None], pictures.double() - before[..., None]
    saturation = (colour[0] * colour[1]).sum((1, 2, 3, 4)) / colour[1].square().sum((1, 2, 3, 4))
    saturation = saturation / brightness / contrast
    assert saturation.min() >= 0.75 and saturation.max() <= 1.25 and saturation.std() > 0.05


TINY = (
    "model.widths=[32]",
    "model.features=16",
    "diffusion.steps=3",
    "imitation.steps=8",
    "imitation.batch_size=16",
    "distill.steps=2",
    "run.checkpoint_every=2",
    *(f"augmentation.{key}={value}" for key, value in ALL.model_dump().items()),
)


@pytest.mark.slow
def test_a_resumed_run_draws_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    config = load_config(None, TINY)
    episodes = reach_demonstrations(range(1, 5), seen=True)
    train_imitation(config, SEEN_REACH_TASK, episodes, tmp_path / "whole")
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        train_imitation(
            config, SEEN_REACH_TASK, episodes, tmp_path / "cut", stop=lambda: next(asked) >= 5
        )
    assert json.loads((tmp_path / "cut" / "checkpoint" / "state.json").read_text())["step"] > 0
    train_imitation(config, SEEN_REACH_TASK, episodes, tmp_path / "cut")
    weights = [
        load_tensors(tmp_path / name / "bundle" / "weights.safetensors")
        for name in ("whole", "cut")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    plain = load_config(None, TINY[: -len(ALL.model_dump())])
    train_imitation(plain, SEEN_REACH_TASK, episodes, tmp_path / "plain")
    other = load_tensors(tmp_path / "plain" / "bundle" / "weights.safetensors")
    assert any(not torch.equal(weights[0][key], other[key]) for key in other)


def test_a_run_begun_before_there_was_a_key_goes_on(tmp_path: Path) -> None:
    from rl100_trainer.stages.runs import open_run

    config = load_config(None, ["imitation.steps=8"])
    assert open_run(tmp_path / "run", config, SEEN_REACH_TASK, "data") is None
    saved = tmp_path / "run" / "config.yaml"
    old = yaml.safe_load(saved.read_text())
    del old["augmentation"]
    saved.write_text(yaml.safe_dump(old))
    assert open_run(tmp_path / "run", config, SEEN_REACH_TASK, "data") is None
    changed = load_config(None, ["imitation.steps=8", "augmentation.cloud_jitter=0.01"])
    with pytest.raises(ContractError, match="another configuration"):
        open_run(tmp_path / "run", changed, SEEN_REACH_TASK, "data")


def test_units_are_those_of_the_configuration() -> None:
    config = AugmentationConfig(camera_error=[0.0, 10.0])
    seen = clouds(300)
    _, after, _ = augmented(
        (torch.zeros(300, 2, 1), seen, torch.zeros(300, 2, 0, 0, 3, dtype=torch.uint8)),
        config,
        seeded(),
    )
    reach = (seen[:, -1] - seen[:, -1].mean(dim=1, keepdim=True)).norm(dim=2).max()
    farthest = (after - seen).norm(dim=3)[:, -1].max()
    assert 0.5 * math.radians(10) * reach < farthest <= math.radians(10) * reach + 1e-5
