"""The policy node: a lifecycle shell around PolicyCore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from rl100_contracts.decode import decode, message_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.observation import ObservationGap, observed_streams
from rl100_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, PolicyStep
from rl100_msgs.srv import LoadBundle
from rl100_node.diagnostics import ERROR, OK, WARN, Diagnostics
from rl100_node.executors import call_soon, fail_soon
from rl100_node.lifecycle import AutostartLifecycleNode
from rl100_node.messages import message_class
from rl100_node.parameters import declare, declare_lockstep, declare_realtime, declare_task
from rl100_node.qos import command_qos, episode_qos, latched_qos, qos_for
from rl100_node.realtime import DeadlineLoop
from rl100_policy_node.bundle_service import BundleService, LastRefusal
from rl100_policy_node.core import Decision, PolicyCore
from rl100_policy_node.gaps import Gaps
from rl100_policy_node.loading import BundleLoader
from rl100_policy_node.outputs import chunk_message, diagnostic_values, status_message, step_message
from rl100_policy_node.runtime import PolicyRuntime

SAMPLERS = ("one_step", "k_step")
STATUS_PERIOD_S = 0.5


class PolicyNode(AutostartLifecycleNode):
    """Publishes an action chunk for each decision of the loaded bundle.

    The executor's thread takes messages; in real time a ``DeadlineLoop`` decides in its own, as
    soon as a due observation is complete. In lockstep the executor's thread decides.
    """

    def __init__(self) -> None:
        super().__init__("rl100_policy")
        self._task = declare_task(self)
        self._lockstep = declare_lockstep(self)
        self._bundle = declare(self, "bundle", "", "directory of the policy bundle; empty: wait")
        seed = declare(self, "seed", 0, "of the policy's noise", low=0, high=2**31 - 1)
        text = "where the inference runs: auto, cpu, openvino, cuda, tensorrt"
        provider = declare(self, "provider", "auto", text)
        threads = declare(self, "threads", 1, "of the inference", low=1, high=64)
        realtime = declare_realtime(self)
        self._declare_sampler()
        self._core = PolicyCore(self._task, lockstep=self._lockstep, seed=seed)
        self._loader = BundleLoader(self._task, provider, threads, gently=not self._lockstep)
        self._refusal, self._gaps = LastRefusal(), Gaps()
        self._loop = DeadlineLoop(
            self._on_tick,
            self._task.control.period_ns,
            settings=realtime,
            name="decide",
            on_failure=self._on_failure,
        )

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
        self._sampling = {n: self.get_parameter(n).value for n in ("sampler", "stochastic")}
        self._chain_comes = False
        self.add_on_set_parameters_callback(self._on_parameters)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        before = dict(self._sampling)
        self._sampling |= {p.name: p.value for p in parameters if p.name in self._sampling}
        try:
            if self._sampling["sampler"] not in SAMPLERS:
                raise ContractError(f"sampler must be one of {', '.join(SAMPLERS)}")
            self._apply_sampling()
        except ContractError as error:
            self._sampling = before
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_sampling(self) -> None:
        """Switch at once, or in real time as soon as the chain is loaded; raises ContractError."""
        runtime = self._core.runtime
        if self._sampling["sampler"] == "k_step" and runtime is not None and not runtime.has_chain:
            if self.active and not self._lockstep:
                if not self._chain_comes:
                    load = partial(self._loader.load_chain, runtime, gently=True)
                    self._loader.begin(load, lambda result: self._later(self._on_chain, result))
                    self._chain_comes = True
                return
            self._loader.load_chain(runtime)
        self._core.set_sampler(self._sampling["sampler"], bool(self._sampling["stochastic"]))
        self._publish_status()

    def _on_chain(self, result: PolicyRuntime | ContractError) -> None:
        self._chain_comes = False
        try:
            if isinstance(result, ContractError):
                raise result
            self._apply_sampling()
        except ContractError as error:
            self._sampling["sampler"] = self._core.sampler
            self.get_logger().error(f"the sampler stays {self._core.sampler}: {error}")

    # --- lifecycle

    def setup(self) -> None:
        self._diagnostics = Diagnostics(self)
        self.on_cleanup_do(self._diagnostics.destroy)
        self._core.set_sampler(self._sampling["sampler"], bool(self._sampling["stochastic"]))
        self._chunks = self.advertise(ActionChunk, "/rl100/action_chunk", command_qos())
        self._steps = self.advertise(PolicyStep, "/rl100/policy_step", command_qos())
        self._status = self.advertise(PolicyStatus, "/rl100/policy_status", latched_qos())
        if self._bundle:
            chain = self._core.sampler == "k_step"
            self._use(self._loader.load(Path(self._bundle), chain=chain))
        for name in observed_streams(self._task):
            stream = self._task.streams[name]
            kind, qos = message_class(stream.type), qos_for(stream, self._lockstep)
            self.subscribe(kind, stream.topic, self._taker(name), qos)
        self.subscribe(EpisodeEvent, "/rl100/episode", self._on_episode, episode_qos())
        self._loader.start()
        self.on_cleanup_do(self._loader.close)
        self._bundles = BundleService(self._on_load_bundle)
        self.on_cleanup_do(self._bundles.close)
        self.every(STATUS_PERIOD_S, self._on_status_timer)

    def start(self) -> None:
        self._core.activate(True)
        if not self._lockstep:
            for refusal in self._loop.start():
                self.get_logger().warning(refusal)
        self._publish_status()

    def halt(self) -> None:
        self._core.activate(False)
        if not self._loop.stop():
            self.get_logger().error("the decision that was being made does not end")
        for line in self._core.statistics.report():
            self.get_logger().info(line)

    # --- decisions

    def _taker(self, stream: str) -> Callable[[Any], None]:
        def take(msg: Any) -> None:
            try:
                value = decode(self._task, stream, msg)
                due = self._core.add(stream, message_stamp_ns(msg), value)
                if due and self._lockstep:
                    self._decide()
                elif due:
                    self._loop.wake()
            except ContractError as error:
                # A robot's mistake: no chunk, so the gateway holds; the sentence says why.
                self._diagnostics.report(ERROR, str(error))

        return take

    def _decide(self) -> None:
        due = self._core.take()
        if due is not None:
            self._core.publish(self._core.decide(due), self._send)

    def _on_tick(self, _: int) -> None:
        """In the loop's thread: woken by an observation that is due, or a control period passed."""
        try:
            self._decide()
            self._core.check_deadline()
        except ObservationGap as error:
            self._gaps.note(str(error))
        except ContractError as error:
            self._later(self._diagnostics.report, ERROR, str(error))

    def _on_failure(self, error: BaseException) -> None:
        fail_soon(self, error)

    def _later(self, action: Callable[..., object], *arguments: object) -> None:
        """Have the executor's thread do something, from any other."""
        call_soon(self, partial(action, *arguments))

    def _send(self, decision: Decision) -> None:
        # First the chain: its chunk may end the episode, and the recording with it.
        if decision.chain is not None and decision.due.stochastic:
            self._steps.publish(step_message(self._task, decision, decision.chain))
        self._chunks.publish(chunk_message(self._task, decision))

    def _on_episode(self, msg: EpisodeEvent) -> None:
        # In lockstep the stamps alone separate the episodes: an event that is late must not
        # forget observations of the episode that has begun.
        if msg.event == EpisodeEvent.STARTED and not self._lockstep:
            self._core.reset(message_stamp_ns(msg))

    # --- bundles

    def _use(self, runtime: PolicyRuntime) -> None:
        self._core.use(runtime)
        self._loop.lift_threads()  # the inference's own, if it has some
        if runtime.provider.reason:
            self.get_logger().warning(
                f"provider {runtime.provider.asked} cannot be used, {runtime.provider.name} runs: "
                f"{runtime.provider.reason}"
            )
        if not runtime.self_tested:
            self.get_logger().warning(
                f"{runtime.folder} has no self-test: only checked for values that are not finite"
            )

    def _load(self, request: LoadBundle.Request) -> PolicyRuntime:
        """Load what was asked for beside the running bundle, then use it; raises ContractError."""
        runtime = self._core.previous
        if not request.previous:
            if not request.path:
                raise ContractError("give the path of a bundle, or previous: true")
            chain = self._core.sampler == "k_step"
            load = partial(self._loader.load, Path(request.path), chain=chain, gently=True)
            runtime = self._bundles.wait_for(self._loader, load)
        elif runtime is None:
            raise ContractError("no bundle ran before the present one")
        while self._core.sampler == "k_step" and not runtime.has_chain:
            load = partial(self._loader.load_chain, runtime, gently=True)
            self._bundles.wait_for(self._loader, load)
        self._use(runtime)
        return runtime

    def _on_load_bundle(
        self, request: LoadBundle.Request, response: LoadBundle.Response
    ) -> LoadBundle.Response:
        """In a thread of the bundle service."""
        try:
            loaded = self._load(request)
        except ContractError as error:
            response.accepted, response.message = False, str(error)
            self._refusal.note(f"bundle refused: {error}")
            self.get_logger().error(f"bundle refused: {error}")
        else:
            self._refusal.note("")
            response.accepted = True
            response.message = f"{loaded.manifest.policy_version} runs from the next chunk on"
            self.get_logger().info(response.message)
        if self._core.runtime is not None:
            response.policy_version = self._core.runtime.manifest.policy_version
        self._later(self._publish_status)
        return response

    # --- status

    def _on_status_timer(self) -> None:
        self._core.statistics.measure_rate()
        level, message = self._health()
        values = diagnostic_values(self._core, self._loop)
        self._diagnostics.report(level, message or "running", values)
        self._publish_status()

    def _health(self) -> tuple[bytes, str]:
        """Level, and what is wrong; empty when nothing is."""
        waiting, refusal = self._core.waiting_for(), str(self._refusal)
        if waiting and self._core.supply.stopped():
            return ERROR, waiting
        if gap := str(self._gaps):
            return ERROR, gap
        if not waiting and self._core.too_slow():
            seconds = self._task.control.n_action_steps * self._task.control.period_ns * 1e-9
            return ERROR, (
                f"a decision takes longer than its chunk lasts ({seconds:g} s), so every action "
                "comes too late: use a smaller network, another provider or more threads"
            )
        if refusal or waiting:
            return WARN, refusal or waiting
        if self._loop.refusals:
            return WARN, self._loop.refusals[0]
        return OK, ""

    def _publish_status(self) -> None:
        if not hasattr(self, "_status"):
            return
        _, message = self._health()
        stamp = self.get_clock().now().to_msg()
        self._status.publish(status_message(self._core, self._loop.refusals, message, stamp))
