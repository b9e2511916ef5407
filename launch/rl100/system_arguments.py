"""Arguments that several systems have. What can be told to be wrong is refused before any start."""

from __future__ import annotations

from rl100.system_parts import SystemArgument
from rl100_contracts.cpus import parse_cpus
from rl100_contracts.errors import ContractError

#: Short names; the policy node also takes ONNX Runtime's own.
PROVIDERS = ("auto", "cpu", "openvino", "cuda", "tensorrt")


def check_provider(text: str) -> None:
    """Raise ContractError where no execution provider has this name."""
    if text.lower() not in PROVIDERS and not text.endswith("ExecutionProvider"):
        raise ContractError(f"choose one of {', '.join(PROVIDERS)}")


TASK = SystemArgument("task", "built-in task or path of a task file", "push")
SIM = SystemArgument("sim", "start the simulated robot too", "false", bool)
LOCKSTEP = SystemArgument(
    "lockstep", "the simulated world waits for the command of each tick", "false", bool
)
SEED = SystemArgument(
    "seed",
    "seed of the simulator, the scripts and the policy's noise",
    "0",
    int,
    low=0,
    high=2**31 - 1,
)
RESPAWN = SystemArgument("respawn", "start nodes that may be restarted again", "true", bool)
ARMING = SystemArgument(
    "arming",
    "an operator arms the policy before it moves the robot (default: unless sim:=true)",
    kind=bool,
)
BUNDLE = SystemArgument("bundle", "directory of the policy bundle", needed=True)
DATA = SystemArgument("data", "directory that episodes are written to", "data")
RUNS = SystemArgument("runs", "directory that training runs are written to", "runs")
PROVIDER = SystemArgument(
    "provider", "ONNX Runtime execution provider (default: the node's)", check=check_provider
)
THREADS = SystemArgument(
    "threads", "threads of the inference (default: the node's)", kind=int, low=1, high=64
)
REALTIME = (
    SystemArgument(
        "realtime",
        "SCHED_FIFO, locked memory and a frozen garbage collector for policy and gateway",
        "false",
        bool,
    ),
    SystemArgument(
        "policy_cpus",
        "CPUs of the policy's control loop, as 2 or 2-3 (default: any)",
        check=parse_cpus,
    ),
    SystemArgument(
        "gateway_cpus", "CPUs of the gateway's control loop (default: any)", check=parse_cpus
    ),
)
NOISE = SystemArgument(
    "noise", "noise of the scripted operator (default: the node's)", kind=float, low=0.0, high=5.0
)
LABELLER = SystemArgument(
    "labeller", "who decides on success", "auto", choices=("auto", "scripted", "keyboard", "none")
)
HELPER = SystemArgument(
    "device",
    "with which a person takes over from the policy",
    "none",
    choices=("none", "keyboard", "joy"),
)
MODE = SystemArgument("mode", "first mode of the gateway", "policy")
REALSENSE = SystemArgument(
    "realsense",
    "RealSense cameras that perception reads itself, as camera:serial (default: by ROS drivers)",
)
SAMPLER = SystemArgument(
    "sampler", "one_step: fast; k_step: the whole chain", "one_step", choices=("one_step", "k_step")
)
