"""For tests: bundles that must be refused, and what each of them is refused with."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rl100_contracts.bundle import (
    DENOISER,
    MANIFEST,
    POLICY,
    WEIGHTS,
    Manifest,
    content_digest,
    load_manifest,
    write_manifest,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_policy_node.testing import heavy_graph, self_test

MakeBundle = Callable[..., Path]
ELSEWHERE = "../elsewhere.bin"  # seen from a bundle


def rehash(folder: Path) -> None:
    """As an attacker would: the checksums fit again."""
    write_manifest(folder, load_manifest(folder))


def edit_manifest(folder: Path, **changes: object) -> None:
    """Change a manifest so that its own digest still fits."""
    data = {**json.loads((folder / MANIFEST).read_text()), **changes}
    (folder / MANIFEST).write_text(json.dumps({**data, "digest": content_digest(data)}))


def edit_policy(folder: Path, edit: Callable[[onnx.ModelProto], object]) -> None:
    """Change the one-step graph so that its checksum still fits."""
    model = onnx.load(str(folder / POLICY))
    edit(model)
    (folder / POLICY).write_bytes(model.SerializeToString())
    rehash(folder)


# --- tensors that lie outside


def _elsewhere(value: np.ndarray, name: str = "stray") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(value, name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=ELSEWHERE)
    return tensor


def _sparse(
    values: onnx.TensorProto, indices: onnx.TensorProto | None = None
) -> onnx.SparseTensorProto:
    """One value of one; without ``indices`` they are inside."""
    inside = numpy_helper.from_array(np.zeros(1, np.int64), "")
    return onnx.SparseTensorProto(values=values, indices=indices or inside, dims=[1])


def _gain_elsewhere(model: onnx.ModelProto) -> None:
    initializers = model.graph.initializer
    initializers[0].CopyFrom(_elsewhere(numpy_helper.to_array(initializers[0]), "gain"))


def _sparse_gain_elsewhere(model: onnx.ModelProto) -> None:
    """ONNX Runtime loads and runs it, with what lies elsewhere as its gain."""
    del model.graph.initializer[0]
    gain = _sparse(_elsewhere(np.zeros(1, np.float32), "gain"))
    model.graph.sparse_initializer.append(gain)


def _sparse_place_elsewhere(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]
    values = numpy_helper.from_array(np.ones(1, np.float32), "gain")
    gain = _sparse(values, _elsewhere(np.zeros(1, np.int64), "place"))
    model.graph.sparse_initializer.append(gain)


def _node(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["stray"], **attributes)


def _function(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Stray", [], ["stray"], [node], opsets))
    return model.functions[-1]


def _function_elsewhere(model: onnx.ModelProto) -> None:
    _function(model, _node(value=_elsewhere(np.zeros(1, np.float32))))


def _function_default_elsewhere(model: onnx.ModelProto) -> None:
    function = _function(model, _node(value_float=0.0))
    stray = _elsewhere(np.zeros(1, np.float32))
    function.attribute_proto.append(helper.make_attribute("value", stray))


def _attribute_elsewhere(model: onnx.ModelProto) -> None:
    model.graph.node.append(_node(sparse_value=_sparse(_elsewhere(np.zeros(1, np.float32)))))


def _training_elsewhere(model: onnx.ModelProto) -> None:
    stray = _elsewhere(np.zeros(1, np.float32))
    model.training_info.add().initialization.initializer.append(stray)


#: Where a graph can hold a tensor that lies outside its file, and the edit that makes it.
OUTSIDE: dict[str, Callable[[onnx.ModelProto], None]] = {
    "initializer": _gain_elsewhere,
    "sparse_initializer": _sparse_gain_elsewhere,
    "sparse_place": _sparse_place_elsewhere,
    "sparse_attribute": _attribute_elsewhere,
    "function": _function_elsewhere,
    "function_default": _function_default_elsewhere,
    "training": _training_elsewhere,
}


# --- all of them


def bad_bundles(make_bundle: MakeBundle, task: Task, nowhere: Path) -> Iterator[tuple[str, Path]]:
    """A part of the sentence that each gets, and the bundle.

    Args:
        make_bundle: see conftest.py; its folders are beside one another.
        task: the running one.
        nowhere: where no bundle is.
    """
    yield "no such bundle", nowhere
    folder = make_bundle("truncated")
    path = folder / DENOISER
    path.write_bytes(path.read_bytes()[:-100])
    yield "denoiser.onnx: damaged or changed", folder
    values = task.model_dump(mode="json")
    other = Task.model_validate({**values, "name": "lift"})
    yield "trained for task 'lift'", make_bundle("other", made_for=other)
    changed = Task.model_validate({**values, "episode": {"max_steps": 7}})
    yield "another version of task 'push'", make_bundle("changed", made_for=changed)
    folder = make_bundle("format")
    edit_manifest(folder, format_version=2)
    yield "format_version", folder
    folder = make_bundle("outside")
    files = load_manifest(folder).files
    edit_manifest(folder, files={**files, "../truncated/policy.onnx": files[POLICY]})
    yield "lies outside the bundle", folder
    for name, edit in OUTSIDE.items():
        folder = make_bundle(name)
        edit_policy(folder, edit)
        (folder / ELSEWHERE).write_bytes(np.ones(1, np.int64).tobytes())
        yield "is stored outside the file", folder
    yield "values that are not finite", make_bundle("nan", gain=float("nan"))
    yield "self-test failed", make_bundle("otherwise", selftest=self_test(task, 0.5))
    # Large: what is not read to run it is hashed beside.
    large = heavy_graph(task, products=0, size=3000)
    folder = make_bundle("large", policy=large)
    with (folder / POLICY).open("r+b") as file:
        file.truncate(34_000_000)
    yield "large/policy.onnx: damaged", folder
    folder = make_bundle("large2", policy=large)
    (folder / WEIGHTS).write_bytes(b"x")
    yield "weights.safetensors: damaged", folder


def flipped_bytes(folder: Path, count: int) -> Iterator[str]:
    """Change one byte of a sound bundle at a time, in all its files in turn.

    Yields:
        Name of the file that is damaged until the next step, by bits drawn from a fixed seed.
    """
    rng, sound = np.random.default_rng(0), load_manifest(folder)
    names = sorted(path.name for path in folder.iterdir() if path.stat().st_size)
    for name in itertools.islice(itertools.cycle(names), count):
        path, data = folder / name, (folder / name).read_bytes()
        while True:
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            # White space of the manifest may change: it says the same then.
            if name != MANIFEST or not _says(folder, sound):
                break
        yield name
        path.write_bytes(data)


def _says(folder: Path, sound: Manifest) -> bool:
    try:
        return load_manifest(folder) == sound
    except ContractError:
        return False
