"""The one-step policy in two parts, so that no frame is encoded twice.

An observation has n_o frames. At control rate all of them but the newest were part of the
observation before, and for a small network the encoder takes most of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.utils

from rl100_contracts.bundle import FRAME, FRAME_CODE, POLICY
from rl100_policy_node.graphs import NOISE, Array, Graph, Model, Runnable, Shape, prepare_model
from rl100_policy_node.providers import Provider

#: Files of the two parts in a checked copy of a bundle.
ENCODER, HEAD = "policy_encoder.onnx", "policy_head.onnx"


def split(model: Model, frames: int) -> tuple[Model, Model] | None:
    """Encoder of one frame, and head: the codes of ``frames`` frames, noise → action.

    Returns:
        None where there is nothing to gain (one frame), or the graph does not name its frames.
    """
    assert model.proto is not None, "a prepared model is split already"
    graph = model.proto.graph
    observed = [FRAME + known.name for known in graph.input if known.name != NOISE]
    named = {known.name for known in graph.value_info}
    if frames < 2 or not named.issuperset({FRAME_CODE, *observed}):
        return None
    whole = onnx.utils.Extractor(model.proto)
    encoder = whole.extract_model(observed, [FRAME_CODE])
    head = whole.extract_model([FRAME_CODE, NOISE], [graph.output[0].name])
    for part, count in ((encoder, 1), (head, frames)):
        # What the whole said of the frames' number holds no more.
        del part.graph.value_info[:]
        for known in (*part.graph.input, *part.graph.output):
            if known.name.startswith(FRAME):
                known.type.tensor_type.shape.dim[0].dim_value = count
    return (
        Model(model.path, encoder.SerializeToString(), encoder),
        Model(model.path, head.SerializeToString(), head),
    )


def prepare_policy(model: Model, frames: int, folder: Path, *, optimise: bool) -> None:
    """As ``prepare_model``, into a folder: both parts, or the whole where there are none."""
    parts = split(model, frames)
    if parts is None:
        prepare_model(model, folder / POLICY, optimise=optimise)
        return
    for part, name in zip(parts, (ENCODER, HEAD), strict=True):
        prepare_model(part, folder / name, optimise=optimise)


def prepared_parts(folder: Path) -> tuple[Model, Model] | None:
    """The parts that ``prepare_policy`` has written; None: there are none."""
    if not (folder / HEAD).is_file():
        return None
    return Model.prepared(folder / ENCODER), Model.prepared(folder / HEAD)


class FramewiseGraph(Runnable):
    """Both parts, in the place of the ``Graph`` of the whole policy. Not thread-safe.

    Args:
        parts: from ``split`` or ``prepared_parts``.
        observed: inputs of the whole that are observed, with the batch axis, (None, n_o, …).
        noise: shape of the noise, likewise.
        action: shape of the actions, likewise.
        provider: ONNX Runtime execution provider.
        threads: intra-op threads.

    Raises:
        ContractError: other inputs and outputs than expected.
        ProviderError: the provider cannot run it.
    """

    def __init__(
        self,
        parts: tuple[Model, Model],
        observed: Mapping[str, Shape],
        noise: Shape,
        action: Shape,
        provider: Provider,
        threads: int,
    ) -> None:
        encoder, head = parts
        frames = {FRAME + name: (None, *shape[2:]) for name, shape in observed.items()}
        count = next(iter(observed.values()))[1]
        self._encoder = Graph(encoder, frames, {FRAME_CODE: (None, None)}, provider, threads)
        inputs: dict[str, Shape] = {FRAME_CODE: (count, None), NOISE: noise}
        self._head = Graph(head, inputs, {"action": action}, provider, threads)
        self._frames = {name: self._buffer(name, shape) for name, shape in observed.items()}
        self._encoded = {name: buffer.copy() for name, buffer in self._frames.items()}
        self._known = False
        self.inputs = {**self._frames, NOISE: self._head.inputs[NOISE]}
        self.outputs = self._head.outputs

    def _buffer(self, name: str, shape: Shape) -> Array:
        kind = self._encoder.inputs[FRAME + name].dtype
        return np.zeros([size or 1 for size in shape], dtype=kind)

    def run(self) -> Mapping[str, Array]:
        codes = self._head.inputs[FRAME_CODE]
        # First all of them, then kept: an encoder that fails must leave what is known as it is.
        found = np.stack([self._code(frame, codes) for frame in range(len(codes))])
        np.copyto(codes, found)
        for name, buffer in self._frames.items():
            np.copyto(self._encoded[name], buffer)
        self._known = True
        return self._head.run()

    def _code(self, frame: int, codes: Array) -> Array:
        """Code of a frame: from the last run where it was part of that one."""
        seen = {name: buffer[0, frame] for name, buffer in self._frames.items()}
        for old in range(len(codes)) if self._known else ():
            if all(np.array_equal(seen[name], self._encoded[name][0, old]) for name in seen):
                known: Array = codes[old]
                return known
        for name, value in seen.items():
            self._encoder.fill(FRAME + name, value)
        return self._encoder.run()[FRAME_CODE][0].copy()
