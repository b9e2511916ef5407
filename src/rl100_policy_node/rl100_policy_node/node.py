"""The policy node: a lifecycle shell around PolicyCore."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from rl100_contracts.chunks import fill_message
from rl100_contracts.decode import decode, message_stamp_ns, split_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import observed_streams
from rl100_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, PolicyStep
from rl100_msgs.srv import LoadBundle
from rl100_node.diagnostics import ERROR, OK, WARN, Diagnostics
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.messages import message_class
from rl100_node.parameters import declare, declare_lockstep, declare_task
from rl100_node.qos import command_qos, episode_qos, latched_qos, qos_for
from rl100_policy_node.core import Decision, PolicyCore
from rl100_policy_node.runtime import PolicyRuntime

SAMPLERS = ("one_step", "k_step")
STATUS_PERIOD_S = 0.5


class PolicyNode(AutostartLifecycleNode):
    """Publishes an action chunk for each decision of the loaded bundle."""

    def __init__(self) -> None:
        super().__init__("rl100_policy")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        self._bundle = declare(self, "bundle", "", "directory of the policy bundle; empty: wait")
        self._seed = declare(self, "seed", 0, "of the policy's noise", low=0, high=2**31 - 1)
        self._provider = declare(self, "provider", "auto", "ONNX Runtime execution provider")
        self._threads = declare(self, "threads", 1, "of the inference", low=1, high=64)
        self._declare_sampler()
        self._core = PolicyCore(self._task, lockstep=self._lockstep, seed=self._seed)
        self._previous: Path | None = None
        self._rate_from = (time.monotonic(), 0)
        self._rate_hz = 0.0

    def _declare_sampler(self) -> None:
        """``sampler`` and ``stochastic`` may be changed while the node runs."""
        text = "one_step: consistency policy; k_step: the whole denoising chain"
        self.declare_parameter("sampler", "one_step", ParameterDescriptor(description=text))
        text = "sample the noise of the chain, as reinforcement learning needs it"
        self.declare_parameter("stochastic", False, ParameterDescriptor(description=text))
        if self.get_parameter("sampler").value not in SAMPLERS:
            raise ContractError(
                f"parameter sampler of {self.get_name()} is "
                f"'{self.get_parameter('sampler').value}': choose one of {', '.join(SAMPLERS)}"
            )
        self.add_on_set_parameters_callback(self._on_parameters)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        wanted = {"sampler": self._core.sampler, "stochastic": self._core.stochastic}
        wanted |= {p.name: p.value for p in parameters if p.name in wanted}
        if wanted["sampler"] not in SAMPLERS:
            reason = f"sampler must be one of {', '.join(SAMPLERS)}"
            return SetParametersResult(successful=False, reason=reason)
        self._core.set_sampler(wanted["sampler"], bool(wanted["stochastic"]))
        self._publish_status()
        return SetParametersResult(successful=True)

    # --- lifecycle

    def setup(self) -> None:
        self._diagnostics = Diagnostics(self)
        self.on_cleanup_do(self._diagnostics.destroy)
        self._core.set_sampler(
            self.get_parameter("sampler").value, bool(self.get_parameter("stochastic").value)
        )
        self._chunks = self.advertise(ActionChunk, "/rl100/action_chunk", command_qos())
        self._steps = self.advertise(PolicyStep, "/rl100/policy_step", command_qos())
        self._status = self.advertise(PolicyStatus, "/rl100/policy_status", latched_qos())
        if self._bundle:
            self._core.use(self._load(Path(self._bundle)))
        for name in observed_streams(self._task):
            stream = self._task.streams[name]
            kind, qos = message_class(stream.type), qos_for(stream, self._lockstep)
            self.subscribe(kind, stream.topic, self._taker(name), qos)
        self.subscribe(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self.serve(LoadBundle, "/rl100_policy/load_bundle", self._on_load_bundle)
        self.every(STATUS_PERIOD_S, self._on_status_timer)

    def start(self) -> None:
        self._publish_status()

    def _load(self, folder: Path) -> PolicyRuntime:
        return PolicyRuntime(folder, self._task, provider=self._provider, threads=self._threads)

    # --- decisions

    def _taker(self, stream: str) -> Callable[[Any], None]:
        def take(msg: Any) -> None:
            try:
                value = decode(self._task, stream, msg)
                self._core.add(stream, message_stamp_ns(msg), value)
                frame_ns = self._core.due() if self.active else None
                if frame_ns is not None:
                    self._publish(self._core.decide(frame_ns, time.time_ns))
            except ContractError as error:
                # A robot's mistake: no chunk, so the gateway holds; the sentence says why.
                self._diagnostics.report(ERROR, str(error))

        return take

    def _publish(self, decision: Decision) -> None:
        chunk, chain = decision.chunk, decision.chain
        frame = self._task.base_frame if self._task.action.is_cartesian else ""
        self._chunks.publish(fill_message(ActionChunk(), chunk, frame, Time))
        if chain is not None and self._core.stochastic and self._core.runtime is not None:
            manifest = self._core.runtime.manifest
            step = PolicyStep(
                sequence=chunk.sequence,
                policy_version=chunk.policy_version,
                denoising_steps=manifest.denoising_steps,
                horizon=manifest.horizon,
                action_dim=manifest.action_dim,
                chain=chain.chain.ravel().tolist(),
                log_probs=chain.log_prob.ravel().tolist(),
                timesteps=manifest.timesteps,
            )
            step.header.frame_id = frame
            step.header.stamp.sec, step.header.stamp.nanosec = split_ns(chunk.observation_ns)
            self._steps.publish(step)

    def _on_episode(self, msg: EpisodeEvent) -> None:
        # In lockstep the stamps alone separate the episodes: an event that is late must not
        # forget observations of the episode that has begun.
        if msg.event == EpisodeEvent.STARTED and not self._lockstep:
            self._core.reset(message_stamp_ns(msg))

    # --- bundles

    def _on_load_bundle(
        self, request: LoadBundle.Request, response: LoadBundle.Response
    ) -> LoadBundle.Response:
        running = self._core.runtime
        folder = self._previous if request.previous else Path(request.path)
        try:
            if folder is None:
                raise ContractError("no bundle ran before the present one")
            if not request.previous and not request.path:
                raise ContractError("give the path of a bundle, or previous: true")
            loaded = self._load(folder)
        except ContractError as error:
            response.accepted, response.message = False, str(error)
            self.get_logger().error(f"bundle refused: {error}")
        else:
            self._previous = running.folder if running else None
            self._core.use(loaded)
            response.accepted = True
            response.message = f"{loaded.manifest.policy_version} runs from the next chunk on"
            self.get_logger().info(response.message)
        if self._core.runtime is not None:
            response.policy_version = self._core.runtime.manifest.policy_version
        self._publish_status()
        return response

    # --- status

    def _waiting_for(self) -> str:
        if self._core.runtime is None:
            return "no bundle is loaded: call /rl100_policy/load_bundle"
        return self._core.assembler.waiting_for()

    def _observation_age_s(self) -> float:
        newest = self._core.assembler.latest_complete()
        if newest is None or self._lockstep:
            return 0.0
        return max((time.time_ns() - newest) * 1e-9, 0.0)

    def _on_status_timer(self) -> None:
        now, (since, count) = time.monotonic(), self._rate_from
        decisions = self._core.inferences - count
        self._rate_hz = max(decisions, 0) / max(now - since, 1e-6)
        self._rate_from = (now, self._core.inferences)
        age, limit = self._observation_age_s(), self._task.safety.observation_timeout_s
        waiting = self._waiting_for()
        if waiting:
            self._diagnostics.report(WARN, waiting)
        elif age > limit:
            self._diagnostics.report(ERROR, f"no complete observation for more than {limit} s")
        else:
            self._diagnostics.report(OK, "running")
        self._publish_status()

    def _publish_status(self) -> None:
        if not hasattr(self, "_status"):
            return
        core, latency = self._core, self._core.latency()
        msg = PolicyStatus(
            task_hash=self._task.hash,
            sampler=core.sampler,
            inferences=core.inferences,
            overruns=core.overruns,
            rate_hz=self._rate_hz,
            inference_p50_ms=latency.p50_ms,
            inference_p99_ms=latency.p99_ms,
            observation_age_s=self._observation_age_s(),
            message=self._waiting_for(),
        )
        msg.header.stamp = self.get_clock().now().to_msg()
        if core.runtime is not None:
            msg.policy_version = core.runtime.manifest.policy_version
            msg.provider = core.runtime.provider
        self._status.publish(msg)
