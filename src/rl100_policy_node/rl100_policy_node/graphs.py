"""Loading a bundle's ONNX graphs so that nothing but the checked bytes can run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from rl100_contracts.errors import ContractError

Shape = tuple[int | None, ...]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.ByteSize():
                    yield from _tensors(inner)


def _refuse_external_data(path: Path, model: bytes) -> None:
    """A tensor that is stored in another file would escape the bundle's checksums."""
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:
        raise ContractError(f"{path}: not a readable ONNX model ({type(error).__name__})") from None
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ContractError(
                f"{path}: tensor '{tensor.name}' is stored outside the file; export it again with "
                "all weights inside"
            )


def available_provider(provider: str) -> str:
    """The ONNX Runtime provider to use; ``auto`` is the CPU.

    Raises:
        ContractError: it is not part of the installed ONNX Runtime.
    """
    name = "CPUExecutionProvider" if provider == "auto" else provider
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise ContractError(
            f"execution provider '{name}' is not available here: choose one of "
            f"{', '.join(available)}"
        )
    return name


def _fits(actual: Iterable[object], expected: Shape) -> bool:
    sizes = list(actual)
    return len(sizes) == len(expected) and all(
        want is None or not isinstance(size, int) or size == want
        for size, want in zip(sizes, expected, strict=True)
    )


class Graph:
    """One checked ONNX graph.

    Args:
        path: the file.
        inputs: expected inputs and their shapes (None: any size).
        outputs: expected outputs, likewise.
        provider: ONNX Runtime execution provider.
        threads: intra-op threads.

    Raises:
        ContractError: unreadable, external data, or other inputs and outputs than expected.
    """

    def __init__(
        self,
        path: Path,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        provider: str,
        threads: int,
    ) -> None:
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ContractError(f"{path}: cannot be read ({error.strerror})") from None
        _refuse_external_data(path, model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread takes a core from the other nodes between two decisions.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has many exception types
            reason = str(error).splitlines()[0]
            raise ContractError(f"{path}: ONNX Runtime cannot load it ({reason})") from None
        self._check(path, "input", self._session.get_inputs(), inputs)
        self._check(path, "output", self._session.get_outputs(), outputs)
        self._outputs = list(outputs)

    @staticmethod
    def _check(
        path: Path, kind: str, found: Iterable[object], expected: Mapping[str, Shape]
    ) -> None:
        shapes = {node.name: node.shape for node in found}  # type: ignore[attr-defined]
        missing = [name for name in expected if name not in shapes]
        if missing:
            raise ContractError(f"{path}: {kind} '{missing[0]}' is missing")
        unknown = [name for name in shapes if name not in expected]
        if kind == "input" and unknown:
            raise ContractError(f"{path}: input '{unknown[0]}' is unknown")
        for name, shape in expected.items():
            if not _fits(shapes[name], shape):
                raise ContractError(
                    f"{path}: {kind} '{name}' has shape {shapes[name]}, the manifest says "
                    f"{list(shape)}"
                )

    def run(self, **inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs in the order that was given to the constructor."""
        return [np.asarray(out) for out in self._session.run(self._outputs, inputs)]
