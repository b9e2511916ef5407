"""The configuration: layers, one-sentence refusals, few and documented keys, a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rl100_contracts.errors import ContractError
from rl100_trainer.config import TrainConfig, config_of_run, load_config, preset_names


def test_unknown_key_is_one_sentence_with_a_hint() -> None:
    with pytest.raises(ContractError) as caught:
        load_config(None, ["imitation.step=10"])
    assert "imitation.step" in str(caught.value) and "'steps'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("imitation.steps", "must look like"),
        ("imitation.learning_rate=-1", "imitation.learning_rate"),
        ("diffusion.steps=80", "diffusion.steps"),
        ("model.widths=[64,128]", "equal widths"),
        ("imitation=3", "imitation"),
    ],
)
def test_bad_overrides_are_refused(override: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        load_config(None, [override])


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("imitation: {steps: 7, batch_size: 9}\n")
    config = load_config(path, ["imitation.steps=8"])
    assert (config.imitation.steps, config.imitation.batch_size) == (8, 9)
    path.write_text("imitaton: {}\n")
    with pytest.raises(ContractError, match=r"mine\.yaml: unknown key 'imitaton'"):
        load_config(path)
    with pytest.raises(ContractError, match="presets"):
        load_config("nonsense")


def test_presets_are_valid_and_yaml_round_trips() -> None:
    for name in preset_names():
        config = load_config(name)
        assert TrainConfig.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_every_key_is_documented_and_they_are_few() -> None:
    keys = [
        (name, field)
        for section in TrainConfig.model_fields.values()
        for name, field in section.annotation.model_fields.items()  # type: ignore[union-attr]
    ]
    assert len(keys) <= 45  # about forty
    assert [name for name, field in keys if not field.description] == []


def test_a_tasks_own_defaults_come_before_presets_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("imitation: {batch_size: 256}")
    own = ["imitation.batch_size=64", "imitation.steps=7"]
    assert load_config(None, task_overrides=own).imitation.batch_size == 64
    config = load_config(tmp_path / "mine.yaml", ["critic.steps=3"], task_overrides=own)
    assert (config.imitation.batch_size, config.imitation.steps) == (256, 7)
    named = load_config(None, [f"preset={tmp_path / 'mine.yaml'}"], task_overrides=own)
    assert named.imitation.batch_size == 256
    assert load_config(None, ["batch_size=8"], task_overrides=own).imitation.batch_size == 8


@pytest.mark.parametrize("preset", ["paper", "paper_small", "paper_single"])
def test_the_papers_critics_bootstrap_and_imitation_takes_all(preset: str) -> None:
    config = load_config(preset)
    assert config.critic.monte_carlo == 0.0
    assert config.offline.imitate == "all"


def test_overrides_of_a_later_stage_are_checked_against_its_runs_configuration(
    tmp_path: Path,
) -> None:
    """σ_max below the default σ_min is fine in a run whose σ_min is lower still."""
    earlier = load_config(None, ["diffusion.sigma_min=0.01"])
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.yaml").write_text(earlier.to_yaml())
    (tmp_path / "bundle" / "manifest.json").touch()
    config = config_of_run(tmp_path, ["diffusion.sigma_max=0.1"])
    assert (config.diffusion.sigma_min, config.diffusion.sigma_max) == (0.01, 0.1)
    with pytest.raises(ContractError, match=r"model\.prediction is sample in .*config\.yaml"):
        config_of_run(tmp_path, ["model.prediction=epsilon"])
    with pytest.raises(ContractError, match="is a bundle: give the folder of the run"):
        config_of_run(tmp_path / "bundle")
    with pytest.raises(ContractError, match="must be a finished run"):
        config_of_run(tmp_path / "nowhere")
    (tmp_path / "bundle" / "manifest.json").unlink()
    with pytest.raises(ContractError, match="a run of a benchmark's task, which has no robot"):
        config_of_run(tmp_path)
