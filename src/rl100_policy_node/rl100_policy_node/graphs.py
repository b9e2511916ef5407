"""Loading a bundle's ONNX graphs so that only checked bytes can run, and running them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import Message
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_policy_node.providers import CPU, Provider

Shape = tuple[int | None, ...]
Array = NDArray[Any]

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
}
SMALL_BYTES = 1024
COMPILED = "EPContext"  # a node that an execution provider fills with what it has compiled
NOISE = "noise"  # an input of every graph; its first axis is the batch


class ProviderError(ContractError):
    """The execution provider cannot run this graph; another one may."""


def _parts(message: Message) -> Iterator[Message]:
    """Every node and every tensor inside a message, wherever the format of ONNX lets one be.

    By the message's own description, so that no place is forgotten: sparse tensors, functions,
    and what a later version of ONNX adds.
    """
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            if isinstance(inner, onnx.NodeProto | onnx.TensorProto):
                yield inner
            if not isinstance(inner, onnx.TensorProto):  # nothing but numbers, megabytes of them
                yield from _parts(inner)


@dataclass(frozen=True)
class Model:
    """A graph that may be run.

    Attributes:
        path: of its file, for errors.
        source: what ONNX Runtime loads: the bytes, or the path of a prepared file.
        proto: the graph; None where it is prepared.
    """

    path: Path
    source: str | bytes
    proto: onnx.ModelProto | None = None

    @staticmethod
    def prepared(path: Path) -> Model:
        """A file that ``prepare_model`` wrote."""
        return Model(path, str(path))


def read_model(path: Path, data: bytes) -> Model:
    """Read an ONNX model all of whose tensors are inside it.

    Args:
        path: of its file, for errors.
        data: what the file holds, from ``read_verified``.

    Raises:
        ContractError: unreadable, or a tensor or a compiled part is stored in another file: it
            would escape the bundle's checksums.
    """
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        raise ContractError(f"{path}: not a readable ONNX model ({type(error).__name__})") from None
    for part in _parts(proto):
        if isinstance(part, onnx.TensorProto) and part.data_location == onnx.TensorProto.EXTERNAL:
            raise ContractError(
                f"{path}: tensor '{part.name}' is stored outside the file; export it again with "
                "all weights inside"
            )
        if isinstance(part, onnx.NodeProto) and part.op_type == COMPILED:
            raise ContractError(
                f"{path}: node '{part.name}' holds a graph compiled for one kind of processor "
                f"({COMPILED}), mostly in another file; export it again as a plain graph"
            )
    return Model(path, data, proto)


def prepare_model(model: Model, target: Path, *, optimise: bool) -> None:
    """Write a copy of a checked model with its weights in a file of their own.

    ONNX Runtime holds Python's interpreter lock while it parses a model, a third of a second for
    63 million weights inside it, but not while it maps weights from a file.

    Args:
        model: from ``read_model``.
        target: the copy.
        optimise: as ONNX Runtime does it for the CPU of this machine, which takes most of the time
            of loading; for other execution providers the graph must stay as it is.

    Raises:
        ProviderError: ONNX Runtime cannot load it.
    """
    assert model.proto is not None, "a prepared model is not prepared again"
    weights = f"{target.name}.weights"
    if not optimise:
        onnx.save_model(
            model.proto,
            str(target),
            save_as_external_data=True,
            location=weights,
            size_threshold=SMALL_BYTES,
        )
        return
    options = _session_options(1, model.proto)
    options.optimized_model_filepath = str(target)
    key = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{key}_file_name", weights)
    options.add_session_config_entry(f"{key}_min_size_in_bytes", str(SMALL_BYTES))
    # Nothing runs in this session, so nothing has to be packed for it.
    options.add_session_config_entry("session.disable_prepacking", "1")
    _open_session(model, options, [(CPU, {})])


def _open_session(
    model: Model,
    options: onnxruntime.SessionOptions,
    providers: list[tuple[str, dict[str, str]]],
) -> onnxruntime.InferenceSession:
    """A session; raises ProviderError."""
    try:
        return onnxruntime.InferenceSession(model.source, options, providers=providers)
    except Exception as error:  # ONNX Runtime has many exception types
        reason = str(error).splitlines()[0]
        raise ProviderError(f"{model.path}: ONNX Runtime cannot load it ({reason})") from None


def _session_options(
    threads: int, proto: onnx.ModelProto | None = None
) -> onnxruntime.SessionOptions:
    """Options for a graph that runs on one sample at a time, in ``threads`` threads.

    ``proto``: the model, unless it is one that ``prepare_model`` optimised with these options.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread takes a core from the other nodes between two decisions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    for known in proto.graph.input if proto is not None else ():
        batch = known.type.tensor_type.shape.dim[:1]
        if known.name == NOISE and batch and batch[0].dim_param:
            # With a size that is known, nothing about shapes is left to compute in each run.
            options.add_free_dimension_override_by_name(batch[0].dim_param, 1)
    return options


def _fits(actual: Iterable[object], expected: Shape) -> bool:
    sizes = list(actual)
    return len(sizes) == len(expected) and all(
        want is None or not isinstance(size, int) or size == want
        for size, want in zip(sizes, expected, strict=True)
    )


class Runnable(ABC):
    """What decides: buffers for a batch of one, and a run on them. Not thread-safe.

    Attributes:
        inputs: what is run on, by name.
        outputs: of the last run.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def fill(self, name: str, value: Array) -> None:
        """Write one sample, without its batch axis, into the buffer of an input."""
        np.copyto(self.inputs[name].reshape(value.shape), value)

    @abstractmethod
    def run(self) -> Mapping[str, Array]:
        """Run on what ``inputs`` holds; the outputs are overwritten by the next run.

        Raises:
            ProviderError: the provider fails.
        """


class Graph(Runnable):
    """One ONNX graph with its input and output buffers, for a batch of one. Not thread-safe.

    Args:
        model: the graph.
        inputs: expected inputs and their shapes (None first: the batch; elsewhere: any size).
        outputs: expected outputs, likewise.
        provider: ONNX Runtime execution provider.
        threads: intra-op threads.

    Raises:
        ContractError: other inputs and outputs than expected.
        ProviderError: the provider cannot run it.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        provider: Provider,
        threads: int,
    ) -> None:
        path, options = model.path, _session_options(threads, model.proto)
        self._session = _open_session(model, options, provider.options(threads))
        used = self._session.get_providers()
        if provider.name not in used:  # it goes on with the CPU and says so in its log only
            raise ProviderError(f"{provider.name} does not start here, {used[0]} does")
        found_inputs, found_outputs = self._session.get_inputs(), self._session.get_outputs()
        self._check(path, "input", found_inputs, inputs)
        self._check(path, "output", found_outputs, outputs)
        self._path = path
        self._binding = self._session.io_binding()
        nodes = {node.name: node for node in (*found_inputs, *found_outputs)}
        self.inputs = {name: self._buffer(nodes[name], shape) for name, shape in inputs.items()}
        self.outputs = {name: self._buffer(nodes[name], shape) for name, shape in outputs.items()}
        for name, buffer in self.inputs.items():
            self._binding.bind_ortvalue_input(name, self._shared(buffer))
        for name, buffer in self.outputs.items():
            self._binding.bind_ortvalue_output(name, self._shared(buffer))

    @staticmethod
    def _buffer(node: Any, shape: Shape) -> Array:
        """Zeros; where ``shape`` leaves a size open, one sample, or as many as the graph says."""
        sizes = [
            want or (found if axis and isinstance(found, int) else 1)
            for axis, (want, found) in enumerate(zip(shape, node.shape, strict=True))
        ]
        # `_check` has seen that the type is one of these.
        return np.zeros(sizes, dtype=DTYPES[node.type])

    @staticmethod
    def _shared(buffer: Array) -> onnxruntime.OrtValue:
        """A tensor of ONNX Runtime over the memory of a NumPy array."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(buffer)

    @staticmethod
    def _check(path: Path, kind: str, found: Iterable[Any], expected: Mapping[str, Shape]) -> None:
        nodes: dict[str, Any] = {node.name: node for node in found}
        missing = [name for name in expected if name not in nodes]
        if missing:
            raise ContractError(f"{path}: {kind} '{missing[0]}' is missing")
        unknown = [name for name in nodes if name not in expected]
        if kind == "input" and unknown:
            raise ContractError(f"{path}: input '{unknown[0]}' is unknown")
        for name, shape in expected.items():
            node = nodes[name]
            if not _fits(node.shape, shape):
                raise ContractError(
                    f"{path}: {kind} '{name}' has shape {node.shape}, the manifest says "
                    f"{list(shape)}"
                )
            if node.type not in DTYPES:
                raise ContractError(
                    f"{path}: {kind} '{name}' is a {node.type}, not one of {', '.join(DTYPES)}"
                )

    def run(self) -> Mapping[str, Array]:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime has many exception types
            reason = str(error).splitlines()[0]
            raise ProviderError(f"{self._path}: ONNX Runtime cannot run it ({reason})") from None
        return self.outputs
