"""Times one ONNX file with two providers, in an environment that has nothing of rl100.

``python openvino_worker.py MODEL INPUTS.npz ROUNDS`` prints one line of JSON. It needs
onnxruntime-openvino and numpy only.
"""

import json
import sys
import time

import numpy as np
import onnxruntime

CALLS, WARM_UP = 5, 5
#: fp32: by default OpenVINO computes in bf16 on CPUs that have it.
OPENVINO = {"device_type": "CPU", "num_of_threads": "1", "precision": "FP32"}


def session(model: str, provider: str, options: dict[str, str]) -> onnxruntime.InferenceSession:
    """A session with one thread; an error when the provider is not the one that runs."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    made = onnxruntime.InferenceSession(model, settings, providers=[(provider, options)])
    if made.get_providers()[0] != provider:
        raise SystemExit(f"{provider} is not what runs: {made.get_providers()}")
    return made


def main() -> None:
    """Measure in turns and print."""
    model, inputs_file, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    inputs = dict(np.load(inputs_file))
    cpu = session(model, "CPUExecutionProvider", {})
    openvino = session(model, "OpenVINOExecutionProvider", OPENVINO)
    error = float(np.max(np.abs(cpu.run(None, inputs)[0] - openvino.run(None, inputs)[0])))
    times: dict[str, list[float]] = {"cpu_ms": [], "openvino_ms": []}
    for number in range(rounds + 1):
        for name, runner in (("cpu_ms", cpu), ("openvino_ms", openvino)):
            for _ in range(CALLS):
                begin = time.perf_counter()
                runner.run(None, inputs)
                spent = (time.perf_counter() - begin) * 1e3
                if number:  # the first round warms up
                    times[name].append(spent)
    print(json.dumps({**times, "error": error, "version": onnxruntime.__version__}))


if __name__ == "__main__":
    main()
