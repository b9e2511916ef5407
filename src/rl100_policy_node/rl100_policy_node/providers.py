"""Which ONNX Runtime execution provider is asked for, and which one there is."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime

from rl100_contracts.errors import ContractError

CPU = "CPUExecutionProvider"
SHORT = {
    "cpu": CPU,
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# TensorRT builds its engine for minutes, so nobody gets it without asking.
AUTO = ("cuda", "openvino", "cpu")


@dataclass(frozen=True)
class Provider:
    """The execution provider of a session.

    Attributes:
        asked: as the user wrote it.
        name: of ONNX Runtime.
        reason: why it is not the one that was asked for; empty when it is.
    """

    asked: str
    name: str
    reason: str = ""

    def fallback(self, reason: str) -> Provider:
        """The CPU instead, for a reason."""
        return Provider(self.asked, CPU, reason)

    def options(self, threads: int) -> list[tuple[str, dict[str, str]]]:
        """What ``InferenceSession`` takes as ``providers``: full fp32 precision, no surprises."""
        chosen: dict[str, dict[str, str]] = {
            SHORT["openvino"]: {
                "device_type": "CPU",
                "num_of_threads": str(threads),
                "precision": "FP32",  # its default is bf16 on some CPUs, wrong by a per cent
            },
            SHORT["cuda"]: {"use_tf32": "0"},
            SHORT["tensorrt"]: {"trt_fp16_enable": "0"},
        }
        names = [self.name]
        if self.name == SHORT["tensorrt"]:
            names.append(SHORT["cuda"])  # for what TensorRT cannot do
        if self.name != CPU:
            names.append(CPU)
        return [(name, chosen.get(name, {})) for name in names]


def choose_provider(asked: str) -> Provider:
    """The provider to try: a short name, ONNX Runtime's own name, or ``auto``.

    One that this installation does not have is replaced by the CPU, with the reason.

    Raises:
        ContractError: no such provider exists.
    """
    available = onnxruntime.get_available_providers()
    if asked == "auto":
        name = next((SHORT[n] for n in AUTO if SHORT[n] in available), CPU)
        return Provider(asked, name)
    name = SHORT.get(asked.lower(), asked)
    if name in available:
        return Provider(asked, name)
    if name not in SHORT.values():
        raise ContractError(
            f"execution provider '{asked}' is unknown: choose one of auto, {', '.join(SHORT)}"
        )
    return Provider(asked, CPU, f"the installed ONNX Runtime has no {name}")
