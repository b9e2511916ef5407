"""The bundle contract: a policy as a directory that can be checked before it is trusted.

    manifest.json        Manifest: version, task, shapes, metrics, sha256 of every other file
    policy.onnx          one step: observation, noise -> action
    denoiser.onnx        K steps: those, step_noise, noise_scale -> action, chain, log_prob
    weights.safetensors  for further training
    config.yaml          configuration of the training run
    task.yaml            the task contract
    selftest.safetensors observations, noise and the actions that the trained policy gives for them

Inputs of both graphs (float32): ``state`` (B, n_o, d_s), what the task observes of ``cloud``
(B, n_o, N, 3) and ``image`` (B, n_o, H, W, 3), uint8, RGB, and ``noise`` (B, h, d_a) ~ N(0, 1).
Output ``action`` (B, n_c, d_a) in the units of the task. The denoiser also takes ``step_noise``
(K, B, h, d_a) ~ N(0, 1) and the scalar ``noise_scale`` (1: stochastic, as in training; 0:
deterministic) and gives ``chain`` (K + 1, B, h, d_a), normalised, and ``log_prob`` (K, B), nats.

Inside, the policy may name (in ``value_info``) the frames that it observes, all of them in one
batch: ``frame_state`` (B · n_o, d_s), ``frame_cloud``, ``frame_image``; and the code that it makes
of each one by itself, ``frame_code`` (B · n_o, w). Then each frame needs to be encoded only once.

The self-test (optional) holds M samples: the graphs' inputs without their batch axis, so ``noise``
(M, h, d_a), ``step_noise`` (M, K, h, d_a), ``noise_scale`` (M,) and so on; and what the trained
policy gives for them: ``action`` and, from the K steps, ``chain_action``, both (M, n_c, d_a).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rl100_contracts.errors import ContractError
from rl100_contracts.loading import StrictModel, parse_model, read_json, write_json_atomic
from rl100_contracts.task import Task

MANIFEST = "manifest.json"
POLICY = "policy.onnx"
DENOISER = "denoiser.onnx"
WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"
TASK = "task.yaml"
SELFTEST = "selftest.safetensors"
# Inside the policy: what stands before the name of an input for its frames, and their code.
FRAME = "frame_"
FRAME_CODE = "frame_code"
# Largest difference of a loaded bundle's actions from its self-test, of the action range. A wrong
# graph is far above, fp32 on any processor far below, and bf16 above.
SELFTEST_LIMIT = 1e-3
REQUIRED_FILES = (POLICY, DENOISER, WEIGHTS, CONFIG, TASK)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]


class Manifest(StrictModel):
    """Description of a bundle."""

    format_version: Literal[1] = 1
    policy_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=96)]
    task: str
    task_hash: str
    stage: str = Field(description="training stage that made it, e.g. il")
    parent: str = Field("", description="policy_version that training started from")
    created: str = Field(description="UTC, ISO 8601")
    n_obs_steps: Count
    state_dim: Count
    num_points: Annotated[int, Field(ge=0)] = Field(description="of a cloud; 0: no cloud")
    image_shape: list[Count] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="height, width, pixels; null: no image",
    )
    horizon: Count = Field(description="predicted actions (h)")
    n_action_steps: Count = Field(description="executed actions (n_c)")
    action_dim: Count
    denoising_steps: Count = Field(description="K")
    timesteps: list[int] = Field(description="diffusion time of each denoising step, (K,)")
    export_parity: float = Field(
        ge=0, description="largest ONNX - training difference, as a fraction of the action range"
    )
    metrics: dict[str, float] = Field(default_factory=dict)
    files: dict[str, Sha256] = Field(description="sha256 of each file")
    digest: Annotated[
        str, Field(description="sha256 of the rest of this manifest, as sorted JSON")
    ] = ""

    @property
    def observation_shapes(self) -> dict[str, tuple[int, ...]]:
        """Inputs of the graphs that are observed, without the batch; ``image`` is uint8."""
        shapes: dict[str, tuple[int, ...]] = {"state": (self.n_obs_steps, self.state_dim)}
        if self.num_points:
            shapes["cloud"] = (self.n_obs_steps, self.num_points, 3)
        if self.image_shape is not None:
            shapes["image"] = (self.n_obs_steps, *self.image_shape, 3)
        return shapes


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


def content_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's JSON without its key ``digest``."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the files of ``folder`` into the manifest and write it; returns what was written.

    Raises:
        ContractError: a required file is missing.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        raise ContractError(f"{folder}: the bundle lacks {missing[0]}")
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    files = {name: sha256_file(folder / name) for name in names}
    manifest = manifest.model_copy(update={"files": files})
    manifest = manifest.model_copy(
        update={"digest": content_digest(manifest.model_dump(mode="json"))}
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def publish_bundle(staging: Path, final: Path) -> None:
    """Rename a finished bundle into place.

    Raises:
        ContractError: ``final`` exists (bundles are never overwritten).
    """
    if final.exists():
        raise ContractError(f"{final}: this bundle exists already and is never overwritten")
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(staging, final)
    except OSError:
        # Another file system: copy beside the goal first, so that the rename stays atomic.
        nearby = final.with_name(f".{final.name}.partial")
        shutil.copytree(staging, nearby)
        os.rename(nearby, final)
        shutil.rmtree(staging)


def check_folder(folder: Path) -> None:
    """Raise ContractError when there is nothing that could be a bundle."""
    if not folder.exists():
        raise ContractError(f"{folder}: no such bundle")
    if not folder.is_dir():
        raise ContractError(f"{folder}: not a folder; a bundle is a folder with a {MANIFEST}")
    if not (folder / MANIFEST).is_file():
        raise ContractError(f"{folder}: not a bundle, it has no file {MANIFEST}")


def load_manifest(folder: Path) -> Manifest:
    """Manifest of a bundle, not yet checked against its files; raises ContractError."""
    check_folder(folder)
    path = folder / MANIFEST
    data = read_json(path)
    manifest = parse_model(Manifest, data, str(path))
    if manifest.digest and manifest.digest != content_digest(data):
        raise ContractError(f"{path}: damaged or changed (its digest is not that of its content)")
    return manifest


def _check_names(folder: Path, manifest: Manifest) -> None:
    missing = [name for name in REQUIRED_FILES if name not in manifest.files]
    if missing:
        raise ContractError(f"{folder / MANIFEST}: files does not list {missing[0]}")
    root = folder.resolve()
    for name in manifest.files:
        path = folder / name
        if Path(name).name != name or path.resolve().parent != root:
            raise ContractError(f"{folder / MANIFEST}: '{name}' lies outside the bundle")
        if not path.is_file():
            raise ContractError(f"{path}: listed in the manifest but missing")


def _check_task(folder: Path, manifest: Manifest, task: Task) -> None:
    if manifest.task != task.name:
        raise ContractError(
            f"{folder}: trained for task '{manifest.task}', not '{task.name}': give a bundle that "
            f"was trained for '{task.name}', or the task of the bundle (task:=)"
        )
    if manifest.task_hash != task.hash:
        raise ContractError(
            f"{folder}: trained for another version of task '{task.name}' (its contract hash is "
            f"{manifest.task_hash[:12]}, the running one's {task.hash[:12]}); train it again or "
            f"start with the task file in the bundle ({TASK})"
        )
    image_shape = task.observation.image_shape
    expected = {
        "n_obs_steps": task.control.n_obs_steps,
        "state_dim": task.observation.state_dim,
        "num_points": task.observation.num_points,
        "image_shape": None if image_shape is None else list(image_shape),
        "n_action_steps": task.control.n_action_steps,
        "action_dim": task.action.dim,
    }
    for key, value in expected.items():
        if getattr(manifest, key) != value:
            raise ContractError(
                f"{folder / MANIFEST}: {key} is {getattr(manifest, key)}, the task needs {value}"
            )


def verify_manifest(folder: Path, task: Task | None = None) -> Manifest:
    """Check a bundle's manifest and (when given) task, but of its files only that they are there.

    Raises:
        ContractError: one sentence that names the file and what is wrong.
    """
    manifest = load_manifest(folder)
    if manifest.horizon < manifest.n_action_steps:
        raise ContractError(f"{folder / MANIFEST}: horizon is below n_action_steps")
    if len(manifest.timesteps) != manifest.denoising_steps:
        raise ContractError(f"{folder / MANIFEST}: timesteps needs one value per denoising step")
    if task is not None:
        _check_task(folder, manifest, task)
    _check_names(folder, manifest)
    return manifest


def _check_hash(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise ContractError(f"{path}: damaged or changed (its sha256 is not the manifest's)")


def read_verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Content of a file that the manifest lists: the very bytes whose checksum fits.

    Who checks a file and reads it again may read another one.

    Raises:
        ContractError: one sentence that names the file and what is wrong.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from None
    _check_hash(path, hashlib.sha256(data).hexdigest(), manifest.files[name])
    return data


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> None:
    """Check the content of a bundle's files, or of those ``names``; see also ``read_verified``.

    Raises:
        ContractError: one sentence that names the file and what is wrong.
    """
    for name in manifest.files if names is None else names:
        path = folder / name
        try:
            actual = sha256_file(path)
        except OSError as error:
            raise ContractError(f"{path}: cannot be read ({error.strerror})") from None
        _check_hash(path, actual, manifest.files[name])


def verify_bundle(folder: Path, task: Task | None = None) -> Manifest:
    """Check a bundle's manifest, files and (when given) task.

    Raises:
        ContractError: one sentence that names the file and what is wrong.
    """
    manifest = verify_manifest(folder, task)
    verify_files(folder, manifest)
    return manifest
