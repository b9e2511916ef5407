"""What the policy node publishes, as messages."""

from __future__ import annotations

from collections.abc import Sequence

from builtin_interfaces.msg import Time

from rl100_contracts.chunks import fill_message
from rl100_contracts.decode import split_ns
from rl100_contracts.task import Task
from rl100_msgs.msg import ActionChunk, PolicyStatus, PolicyStep
from rl100_node.realtime import DeadlineLoop
from rl100_policy_node.core import Decision, PolicyCore
from rl100_policy_node.runtime import KStep


def _frame(task: Task) -> str:
    return task.base_frame if task.action.is_cartesian else ""


def chunk_message(task: Task, decision: Decision) -> ActionChunk:
    """The actions of a decision."""
    return fill_message(ActionChunk(), decision.chunk, _frame(task), Time)


def step_message(task: Task, decision: Decision, chain: KStep) -> PolicyStep:
    """The chain that a decision came from."""
    manifest = decision.due.runtime.manifest
    step = PolicyStep(
        sequence=decision.chunk.sequence,
        policy_version=decision.chunk.policy_version,
        denoising_steps=manifest.denoising_steps,
        horizon=manifest.horizon,
        action_dim=manifest.action_dim,
        chain=chain.chain.ravel().tolist(),
        log_probs=chain.log_prob.ravel().tolist(),
        timesteps=manifest.timesteps,
    )
    step.header.frame_id = _frame(task)
    step.header.stamp.sec, step.header.stamp.nanosec = split_ns(decision.chunk.observation_ns)
    return step


def status_message(
    core: PolicyCore, refused: Sequence[str], message: str, stamp: Time
) -> PolicyStatus:
    """The state of the policy."""
    statistics, latency = core.statistics, core.statistics.latency()
    msg = PolicyStatus(
        task_hash=core.task.hash,
        sampler=core.sampler,
        inferences=statistics.inferences,
        overruns=statistics.overruns,
        missed_deadlines=statistics.missed,
        rate_hz=statistics.rate_hz,
        inference_p50_ms=latency.model[0],
        inference_p99_ms=latency.model[1],
        decision_p50_ms=latency.decision[0],
        decision_p99_ms=latency.decision[1],
        observation_age_s=core.observation_age_s(),
        message=message,
        refused=list(refused),
    )
    msg.header.stamp = stamp
    if core.runtime is not None:
        msg.policy_version = core.runtime.manifest.policy_version
        msg.provider = core.runtime.provider.name
        msg.provider_asked = core.runtime.provider.asked
        msg.provider_reason = core.runtime.provider.reason
    if core.previous is not None:
        msg.previous_version = core.previous.manifest.policy_version
    return msg


def diagnostic_values(core: PolicyCore, loop: DeadlineLoop) -> dict[str, str]:
    """Figures for ``/diagnostics``."""
    statistics, latency, figures = core.statistics, core.statistics.latency(), loop.figures()
    values = {
        "policy version": core.runtime.manifest.policy_version if core.runtime else "",
        "sampler": core.sampler,
        "rate Hz": f"{statistics.rate_hz:.2f}",
        "decisions": f"{statistics.inferences}",
        "late decisions": f"{statistics.overruns}",
        "missed deadlines": f"{statistics.missed}",
        "model p50, p99 ms": f"{latency.model[0]:.2f}, {latency.model[1]:.2f}",
        "observation to chunk p50, p99 ms": (
            f"{latency.decision[0]:.2f}, {latency.decision[1]:.2f}"
        ),
        "observation age s": f"{core.observation_age_s():.3f}",
        "clock jumps": f"{core.supply.clock_jumps}",
        "loop late p50, p99, max ms": (
            f"{figures.late_p50_ms:.2f}, {figures.late_p99_ms:.2f}, {figures.late_max_ms:.2f}"
        ),
    }
    if core.runtime is not None:
        provider = core.runtime.provider
        values |= {
            "provider": provider.name,
            "provider asked": provider.asked,
            "provider reason": provider.reason,
            "self-test": "passed" if core.runtime.self_tested else "the bundle has none",
        }
    for number, refusal in enumerate(loop.refusals, start=1):
        values[f"refused {number}"] = refusal
    return values
