"""Configuration of a training run: every key, its default and what it does.

The defaults are small enough for one CPU core; ``presets/paper.yaml`` has the paper's sizes. The
complete configuration is saved with the run and travels with the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from rl100_contracts.bundle import CONFIG, MANIFEST
from rl100_contracts.errors import ContractError
from rl100_contracts.loading import StrictModel, describe, parse_model, read_text

Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8, le=8192)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

TRAIN_STEPS = 100  # T, diffusion times of the squared-cosine schedule
PRESETS = Path(__file__).parent / "presets"


class ModelConfig(StrictModel):
    """Networks."""

    denoiser: Literal["skipnet", "unet"] = Field(
        default="skipnet", description="skipnet: residual MLP over the whole chunk; unet: 1-D U-Net"
    )
    prediction: Literal["epsilon", "sample"] = Field(
        default="sample",
        description="what the denoiser predicts: the noise (paper) or the clean action",
    )
    horizon: Count | None = Field(
        default=None, description="predicted actions h; empty: as many as are executed"
    )
    widths: list[Width] = Field(
        default=[256, 256],
        min_length=1,
        description="skipnet: one equal width per residual block; unet: channels per level",
    )
    expansion: Count = Field(default=1, description="skipnet: hidden width of a block / its width")
    features: Width = Field(
        default=64, description="width of the cloud's and of the state's features"
    )
    point_widths: list[Width] = Field(
        default=[64, 128], min_length=1, description="layers of the point MLP"
    )
    norm: Literal["every", "end", "none"] = Field(
        default="end",
        description="LayerNorm in the cloud encoder: every layer (DP3), at its end, none",
    )

    @model_validator(mode="after")
    def _fitting_widths(self) -> ModelConfig:
        if self.denoiser == "skipnet" and len(set(self.widths)) > 1:
            raise ValueError("a skipnet needs equal widths, one per residual block")
        if self.denoiser == "unet" and any(w % 8 or w < 16 for w in self.widths):
            raise ValueError("the widths of a unet must be multiples of 8, 16 or more")
        return self


class DiffusionConfig(StrictModel):
    """Noise schedule and sampler (squared cosine, DDIM with η = 1)."""

    steps: Annotated[int, Field(ge=2, le=TRAIN_STEPS // 2)] = Field(
        default=5, description=f"denoising steps K, of T = {TRAIN_STEPS}; below 5 noise is left"
    )
    sigma_min: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2,
        description="lower bound of σ in rollouts: exploration, of which the RL stages need much",
    )
    sigma_max: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="upper bound of σ (paper: 0.8 for single actions, 0.1 for chunks)"
    )

    @model_validator(mode="after")
    def _bounds_fit(self) -> DiffusionConfig:
        if self.sigma_max < self.sigma_min:
            raise ValueError("sigma_max must not be below sigma_min")
        return self


class ImitationConfig(StrictModel):
    """Imitation: encoder and denoiser."""

    steps: Count = Field(
        default=1500,
        description="optimiser steps; re-training in the offline stage has twice as many",
    )
    batch_size: Count = Field(default=128, description="observations in a step; distillation too")
    learning_rate: Rate = Field(
        default=1e-3, description="AdamW with warm-up, then cosine to 0; distillation too"
    )
    beta_recon: Weight = Field(
        default=0.5, description="weight of the reconstruction of what is observed"
    )
    beta_kl: Weight = Field(default=1e-5, description="weight of the information bottleneck")
    outcomes: list[Literal["success", "failure", "unknown"]] = Field(
        default=["success"], min_length=1, description="which episodes are imitated"
    )


class AugmentationConfig(StrictModel):
    """Augmentation of what the imitation and the critics see; images are always shifted (DrQ)."""

    image_color: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="brightness, contrast and saturation change by up to this share"
    )
    cloud_jitter: Annotated[float, Field(ge=0, le=0.1)] = Field(
        default=0.0, description="standard deviation of noise on each point, m"
    )
    cloud_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="up to this share of the points gives way to others, and again as many around "
        "one point, as if hidden",
    )
    camera_error: Annotated[list[Weight], Field(min_length=2, max_length=2)] = Field(
        default=[0.0, 0.0],
        description="shift along each axis, m, and turn, degrees, of the cloud against the robot "
        "at most: what an error of the camera's calibration does",
    )


class DistillConfig(StrictModel):
    """Consistency distillation: the one-step student."""

    steps: Count = Field(default=3000, description="optimiser steps")


class CriticConfig(StrictModel):
    """Q and V of the reinforcement learning stages."""

    discount: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.9925, description="γ of one control step; a chunk's is γ^n"
    )
    expectile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.7, description="IQL: the expectile that V takes of Q"
    )
    monte_carlo: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="weight of the recorded return in Q's target; 0: IQL as published"
    )
    steps: Count = Field(default=2000, description="optimiser steps of each offline iteration")


class OfflineConfig(StrictModel):
    """Iterative offline reinforcement learning."""

    iterations: Annotated[int, Field(ge=0)] = Field(
        default=2, description="M: roll out, merge, improve; 0: no offline stage"
    )
    rollouts: Count = Field(
        default=200, description="episodes with exploration noise that each iteration begins with"
    )
    phases: Count = Field(default=2, description="gated phases between two trials")
    steps: Count = Field(default=100, description="optimiser steps of one phase")
    learning_rate: Rate = Field(default=3e-5, description="Adam, of the denoiser")
    gate: Literal["paired", "margin", "both", "none"] = Field(
        default="paired",
        description="paired: mean over standard error of the paired gain; margin: 5 % (paper)",
    )
    check_episodes: Annotated[int, Field(ge=0)] = Field(
        default=100,
        description="pairs of real episodes at most of a trial before a policy is adopted (0: no "
        "trial); evaluations that choose the online stage's best one have twice as many",
    )
    imitate: Literal["none", "successes", "weighted", "all"] = Field(
        default="weighted",
        description="what of all data so far a policy goes on imitating after each iteration's "
        "improvement, to win a trial against it: all, the successes, all weighted by advantage; "
        "none: skip it",
    )


class OnlineConfig(StrictModel):
    """On-policy reinforcement learning."""

    env_steps: Count = Field(
        default=1_000_000,
        description="control steps to collect at most (the simulated arm: 600000)",
    )
    environments: Count = Field(default=64, description="simulated worlds side by side")
    decisions: Count = Field(default=20, description="decisions of each between two updates")
    learning_rate: Rate = Field(
        default=2e-4,
        description="Adam, of denoiser and encoder; falls to 15 % linearly over env_steps (on "
        "recorded episodes, whose number nobody knows, it does not)",
    )
    clip: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="ε of PPO, for each denoising step"
    )
    train_encoder: bool = Field(default=True, description="false: frozen, as in the offline stage")
    distill_weight: Weight = Field(
        default=1.0,
        description="λ_CD, offline too: the student's learning rate by imitation's (it has an Adam "
        "of its own, which a factor of its loss would not slow down); 0: no student",
    )


class RunConfig(StrictModel):
    """The run itself."""

    algorithm: Literal["rl100", "bc", "dppo", "wsrl"] = Field(
        default="rl100",
        description="bc: imitation only; dppo: then online PPO only; wsrl: then warm-started SAC",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0,
        description="same seed, same result (CPU; an online stage that was interrupted excepted)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU when there is one"
    )
    checkpoint_every: Count = Field(
        default=500,
        description="optimiser steps between checkpoints of imitation (online: every evaluation)",
    )


class TrainConfig(StrictModel):
    """Everything that a training run can be told."""

    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    imitation: ImitationConfig = ImitationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    distill: DistillConfig = DistillConfig()
    critic: CriticConfig = CriticConfig()
    offline: OfflineConfig = OfflineConfig()
    online: OnlineConfig = OnlineConfig()
    run: RunConfig = RunConfig()

    def to_yaml(self) -> str:
        """YAML text that loads to an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _check_layer(layer: Any, source: str) -> None:
    """Refuse mistakes of one layer by its name; what spans several keys is checked when merged."""
    try:
        TrainConfig.model_validate(layer)
    except ValidationError as error:
        if any(problem["type"] != "value_error" for problem in error.errors()):
            raise ContractError(describe(error, TrainConfig, layer, source)) from None


def _read_layer(source: str | Path) -> dict[str, Any]:
    """Keys of a preset (by its name) or of a YAML file; raises ContractError."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{source}.yaml"
        if not path.is_file():
            raise ContractError(
                f"configuration '{source}' is unknown: give one of the presets "
                f"({', '.join(preset_names())}) or a file that ends in .yaml"
            )
    try:
        layer = yaml.safe_load(read_text(path)) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ContractError(
            f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML"
        ) from None
    _check_layer(layer, str(path))
    return dict(layer)


def _is_preset(override: str) -> bool:
    return override.partition("=")[0].strip() == "preset"


def _merge(base: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def describe_keys() -> list[str]:
    """One line per key: its name, default and description."""
    lines = []
    for section, part in TrainConfig.model_fields.items():
        for key, field in _fields(part).items():
            lines.append(f"{section}.{key} = {field.default}: {field.description}")
    return lines


def _fields(section: FieldInfo) -> dict[str, FieldInfo]:
    kind = section.annotation
    assert isinstance(kind, type) and issubclass(kind, StrictModel)
    return kind.model_fields


def _full_path(name: str, text: str) -> list[str]:
    """``section.key`` of an override; the section may be left out where the key is unique."""
    if "." in name:
        return name.split(".")
    sections = [s for s, part in TrainConfig.model_fields.items() if name in _fields(part)]
    if len(sections) > 1:
        choices = " or ".join(f"{section}.{name}" for section in sections)
        raise ContractError(f"override '{text}': say which one you mean, {choices}")
    return [*sections, name]


def load_config(
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    task_overrides: Sequence[str] = (),
) -> TrainConfig:
    """Defaults, then a preset or file, then ``section.key=value`` overrides.

    ``preset=<preset or file>`` among the overrides stands for ``source``, for callers that have
    overrides only.

    Args:
        task_overrides: what a task has for defaults of its own; presets and files come after them.

    Raises:
        ContractError: one sentence that names the file or override and the key.
    """
    layers = [source] if source else []
    layers += [text.partition("=")[2].strip() for text in overrides if _is_preset(text)]
    keys = _with_overrides({}, task_overrides)
    for entry in layers:
        keys = _merge(keys, _read_layer(entry))
    keys = _with_overrides(keys, overrides)
    return parse_model(TrainConfig, keys, str(layers[0] if layers else "configuration"))


def config_of_run(run: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Configuration of a finished run's bundle, with overrides.

    Raises:
        ContractError: there is none, a mistake in an override, or one that wants other networks.
    """
    path = run / "bundle" / CONFIG
    if (run / MANIFEST).is_file():
        raise ContractError(f"{run}: is a bundle: give the folder of the run that it is in")
    if not path.is_file():
        raise ContractError(f"{path}: not there: what is gone on from must be a finished run")
    if not (run / "bundle" / MANIFEST).is_file():
        raise ContractError(
            f"{run}: a run of a benchmark's task, which has no robot: what is gone on from must be "
            "a run of a task with a task file"
        )
    config, own = load_config(path, overrides), load_config(path)
    # Some of them have the same shapes and would be taken for the others without a word.
    for key, value in own.model:
        if getattr(config.model, key) != value:
            raise ContractError(
                f"model.{key} is {value} in {path}: the weights that are gone on from stay what "
                "they are; leave the override out, or begin with imitation"
            )
    return config


def _with_overrides(keys: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for text in overrides:
        name, equals, value = text.partition("=")
        if _is_preset(text):
            continue
        if not equals or not name.strip():
            raise ContractError(f"override '{text}' must look like imitation.steps=1000")
        path = _full_path(name.strip(), text)
        try:
            layer: Any = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ContractError(f"override '{text}': the value is not valid YAML") from None
        for part in reversed(path):
            layer = {part: layer}
        _check_layer(layer, f"override '{text}'")
        keys = _merge(keys, layer)
    return keys
