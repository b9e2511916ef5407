"""Which nodes make up each system: the one description, as data.

``launch/*.launch.py`` turn it into launch_ros actions, ``rl100 up`` into processes; neither adds
or changes a node. No rclpy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rl100.system_arguments import (
    ARMING,
    BUNDLE,
    DATA,
    HELPER,
    LABELLER,
    LOCKSTEP,
    MODE,
    NOISE,
    PROVIDER,
    REALSENSE,
    REALTIME,
    RESPAWN,
    RUNS,
    SAMPLER,
    SEED,
    SIM,
    TASK,
    THREADS,
)
from rl100.system_parts import NodeSpec, System, SystemArgument, Value, suggestion
from rl100.task_needs import check_simulated, observes_cloud
from rl100.viewer import RVIZ, check_viewer, viewer
from rl100_contracts.errors import ContractError

# The gateway is above the policy: it must hold the robot also while the policy computes.
POLICY_PRIORITY, GATEWAY_PRIORITY = 50, 60


def _node(
    package: str, executable: str, name: str, values: dict[str, Value], *keys: str, **fixed: Value
) -> NodeSpec:
    """A node with the parameter ``task``, those of ``keys`` that have a value, and ``fixed``."""
    parameters = {key: values[key] for key in ("task", *keys) if key in values}
    return NodeSpec(package, executable, name, {**parameters, **fixed})


def _sim(values: dict[str, Value]) -> NodeSpec:
    check_simulated(str(values["task"]))
    node = _node("rl100_sim", "sim", "rl100_sim", values, "lockstep", "seed")
    return replace(node, required=True)


def _perception(values: dict[str, Value]) -> list[NodeSpec]:
    if not observes_cloud(str(values["task"])):
        return []
    keys = ("lockstep", "realsense")
    node = _node("rl100_perception", "perception", "rl100_perception", values, *keys)
    return [replace(node, lifecycle=True, respawn=True)]


def _policy(values: dict[str, Value], **fixed: Value) -> NodeSpec:
    keys = ("lockstep", "bundle", "sampler", "stochastic", "seed", "provider", "threads")
    fixed |= _realtime(values, "policy_cpus", POLICY_PRIORITY)
    node = _node("rl100_policy_node", "policy", "rl100_policy", values, *keys, **fixed)
    return replace(node, lifecycle=True, respawn=True)


def _realtime(values: dict[str, Value], cpus: str, priority: int) -> dict[str, Value]:
    """Real-time parameters of a node with a control loop; empty unless asked for."""
    parameters: dict[str, Value] = {}
    if values.get("realtime"):
        parameters |= {"thread_priority": priority, "lock_memory": True, "freeze_gc": True}
    if cpus in values:
        parameters["cpu_affinity"] = values[cpus]
    return parameters


def _gateway(values: dict[str, Value], mode: str) -> NodeSpec:
    # Never restarted: the one publisher of commands must not come back in motion by itself.
    simulated = bool(values.get("sim") or values.get("lockstep"))
    arming = bool(values.get("arming", not simulated))
    fixed: dict[str, Value] = {"mode": mode, "arming": arming}
    fixed |= _realtime(values, "gateway_cpus", GATEWAY_PRIORITY)
    node = _node("rl100_control", "gateway", "rl100_gateway", values, "lockstep", **fixed)
    return replace(node, lifecycle=True, required=True)


def _recorder(values: dict[str, Value]) -> NodeSpec:
    node = _node("rl100_teleop", "recorder", "rl100_recorder", values, "lockstep", "data")
    return replace(node, respawn=True)


def _teleop(values: dict[str, Value], device: str) -> NodeSpec:
    if device == "scripted":
        check_simulated(str(values["task"]), scripted=True)
        keys = ("noise", "seed")
        return _node("rl100_sim", "scripted_teleop", "rl100_scripted_teleop", values, *keys)
    node = _node("rl100_teleop", f"teleop_{device}", "rl100_teleop", values)
    return replace(node, needs_terminal=device == "keyboard", respawn=device != "keyboard")


def _helper(values: dict[str, Value]) -> list[NodeSpec]:
    return [] if values["device"] == "none" else [_teleop(values, str(values["device"]))]


def _labeller(values: dict[str, Value], labeller: str) -> list[NodeSpec]:
    if labeller == "none":
        return []
    if labeller == "scripted":
        return [_node("rl100_sim", "scripted_labeller", "rl100_scripted_labeller", values)]
    node = _node("rl100_reward_keyboard", "reward_keyboard", "rl100_reward_keyboard", values)
    return [replace(node, needs_terminal=True)]


def _chosen_labeller(values: dict[str, Value], scripted: bool) -> str:
    labeller = str(values["labeller"])
    if labeller == "scripted" and not values["sim"]:
        raise ContractError(
            "labeller:=scripted reads the simulator's ground truth: add sim:=true, or use "
            "labeller:=keyboard"
        )
    if labeller == "auto":
        return "scripted" if scripted else "keyboard"
    return labeller


def _simulated(values: dict[str, Value]) -> list[NodeSpec]:
    if values["lockstep"] and not values["sim"]:
        raise ContractError("lockstep:=true needs the simulated world: add sim:=true")
    return [_sim(values)] if values["sim"] else []


def _deploy(values: dict[str, Value]) -> list[NodeSpec]:
    policy = _policy(values, stochastic=False)
    return [
        *_simulated(values),
        *_perception(values),
        _gateway(values, str(values["mode"])),
        policy,
        *_helper(values),
        *viewer(values),
    ]


def _record(values: dict[str, Value]) -> list[NodeSpec]:
    device = str(values["device"])
    if device == "scripted" and not values["sim"]:
        raise ContractError(
            "device:=scripted drives the simulated robot only: add sim:=true, or use "
            "device:=keyboard or device:=joy"
        )
    return [
        *_simulated(values),
        *_perception(values),
        _gateway(values, "teleop"),
        _recorder(values),
        _teleop(values, device),
        *_labeller(values, _chosen_labeller(values, scripted=device == "scripted")),
        *viewer(values),
    ]


def _rollout(values: dict[str, Value]) -> list[NodeSpec]:
    return [
        *_simulated(values),
        *_perception(values),
        _gateway(values, "policy"),
        _recorder(values),
        _policy({**values, "sampler": "k_step"}, stochastic=True),
        *_helper(values),
        *_labeller(values, _chosen_labeller(values, scripted=bool(values["sim"]))),
        *viewer(values),
    ]


def _train(values: dict[str, Value]) -> list[NodeSpec]:
    node = _node("rl100_trainer", "trainer_node", "rl100_trainer", values, "runs")
    # Training may use every core, so the quiet settings of the other nodes are left out.
    return [replace(node, required=True, environment={})]


def _lockstep_graph(values: dict[str, Value]) -> list[NodeSpec]:
    return [
        _sim(values),
        *_perception(values),
        _gateway(values, str(values["mode"])),
        _policy(values),
        *_labeller(values, "scripted"),
    ]


def _all_needed(nodes: list[NodeSpec]) -> list[NodeSpec]:
    # A run that lost a node is not the run that was asked for: end it and say which one it was.
    return [replace(node, respawn=False, required=True) for node in nodes]


def _evaluate(values: dict[str, Value]) -> list[NodeSpec]:
    return _all_needed(_lockstep_graph({**values, "lockstep": True}))


def _demo(values: dict[str, Value]) -> list[NodeSpec]:
    values = {**values, "lockstep": True}
    extra = [_recorder(values), _teleop(values, "scripted"), *_train(values)]
    return _all_needed([*_lockstep_graph(values), *extra])


_COMMON = (TASK, SIM, LOCKSTEP, SEED, RESPAWN, REALSENSE, RVIZ)
_LOCKSTEP = (
    TASK,
    SEED,
    replace(BUNDLE, needed=False, description="first policy bundle (default: none)"),
    SAMPLER,
    SystemArgument("stochastic", "the policy samples with noise", "false", bool),
    replace(MODE, default="teleop", choices=("teleop", "policy")),
    PROVIDER,
    THREADS,
)

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(
            "deploy",
            "run a trained policy, one network evaluation per decision",
            (
                *_COMMON,
                BUNDLE,
                replace(MODE, choices=("policy", "shadow", "idle")),
                ARMING,
                HELPER,
                SAMPLER,
                PROVIDER,
                THREADS,
                *REALTIME,
            ),
            _deploy,
        ),
        System(
            "record",
            "record demonstrations",
            (
                *_COMMON,
                DATA,
                SystemArgument(
                    "device",
                    "who moves the robot",
                    "keyboard",
                    choices=("keyboard", "joy", "scripted"),
                ),
                LABELLER,
                NOISE,
            ),
            _record,
        ),
        System(
            "rollout",
            "run a policy with its full, random denoising chain and record it for training",
            (*_COMMON, BUNDLE, DATA, ARMING, HELPER, LABELLER, PROVIDER, THREADS, *REALTIME),
            _rollout,
        ),
        System(
            "train",
            "the trainer node, which trains on recorded episodes when it is asked to",
            (TASK, RUNS),
            _train,
        ),
        System(
            "demo",
            "everything in the simulated world in lockstep, for rl100 demo",
            (*_LOCKSTEP, DATA, NOISE, RUNS),
            _demo,
        ),
        System(
            "evaluate",
            "a policy in the simulated world in lockstep, for rl100 eval",
            _LOCKSTEP,
            _evaluate,
        ),
        System(
            "sim",
            "the simulated robot and its camera by themselves",
            (TASK, LOCKSTEP, SEED),
            lambda values: [_sim(values)],
        ),
    )
}


def system_named(name: str) -> System:
    """The system ``name``; raises ContractError with the known names."""
    if name not in SYSTEMS:
        raise ContractError(
            f"system '{name}' is unknown: choose one of {', '.join(SYSTEMS)}"
            + suggestion(name, SYSTEMS)
        )
    return SYSTEMS[name]


def parse_assignments(words: list[str]) -> dict[str, str]:
    """``["key:=value", ...]`` as a dict; raises ContractError for anything else."""
    pairs: dict[str, str] = {}
    for word in words:
        key, mark, value = word.partition(":=")
        if not mark or not key:
            raise ContractError(f"'{word}' is no argument of a system: write key:=value")
        if key in pairs:
            raise ContractError(f"{key}:= is given twice")
        pairs[key] = value
    return pairs


def resolve(system: str, arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Checked values of all arguments of ``system``: the given ones and the defaults.

    An empty value means "the default". Arguments without a value are left out.

    Raises:
        ContractError: an unknown system or argument, or a value that does not fit.
    """
    described = system_named(system)
    known = {argument.name: argument for argument in described.arguments}
    for key in arguments:
        if key not in known:
            raise ContractError(
                f"system '{system}' has no argument '{key}': it has {', '.join(known)}"
                + suggestion(key, known)
            )
    values: dict[str, Value] = {}
    for name, argument in known.items():
        given = arguments.get(name, "")
        text = str(given).lower() if isinstance(given, bool) else str(given)
        if text:
            values[name] = argument.parse(text)
        elif argument.default is not None:
            values[name] = argument.parse(argument.default)
        elif argument.needed:
            raise ContractError(f"system '{system}' needs {name}:=VALUE ({argument.description})")
    return values


def describe(system: str, arguments: Mapping[str, Value] | None = None) -> list[NodeSpec]:
    """The nodes of ``system``, in the order in which they start.

    Raises:
        ContractError: an unknown system or argument, or values that contradict each other.
    """
    values = resolve(system, arguments or {})
    nodes = SYSTEMS[system].build(values)
    if values.get("respawn", True):
        return nodes
    # Nobody brings a node back, so the system ends with it instead of running on maimed.
    return [replace(node, respawn=False, required=node.required or node.respawn) for node in nodes]


def preflight(system: str, arguments: Mapping[str, Value] | None = None) -> list[NodeSpec]:
    """``describe``, and checks of the task and the bundle that every node would fail on.

    Raises:
        ContractError: also when the task or the bundle is not usable.
    """
    nodes = describe(system, arguments)
    check_viewer(nodes)
    try:
        from rl100_contracts.bundle import verify_bundle
        from rl100_contracts.task import load_task
    except ImportError:
        # `ros2 launch` may run on the system's Python, without the packages of the nodes: they
        # check the same by themselves.
        return nodes
    values = resolve(system, arguments or {})
    task = load_task(str(values["task"]))
    if "bundle" in values:
        verify_bundle(Path(str(values["bundle"])), task)
    return nodes
