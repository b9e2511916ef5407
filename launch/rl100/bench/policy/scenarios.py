"""What is done with the running nodes, and what is read off the wire."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rl100.bench.policy.system import GATEWAY, POLICY, Running
from rl100.bench.policy.wire import SeenChunk, SeenTick, Wire
from rl100_contracts.bundle import load_manifest
from rl100_msgs.msg import ExecutedAction

Step = Callable[[float], None]  # told how much of the part (in its own unit) is done

WARM_UP_S = 1.0
# The sensor is slower than the gateway's nominal rate by this, as two clocks never agree: the
# gateway must follow the arrival of the chunks.
STRETCH = 1.002
MEMORY_EVERY_S = 5.0
DECIDES_EACH_PERIOD = 2  # executed actions (n_c) up to which each observation gets a decision
IN_FLIGHT_PERIODS = 5  # the last observations of a run, whose chunks may still be on their way


@dataclass
class Latencies:
    """From the wire, ms.

    Attributes:
        to_publish: observation sent -> chunk published (in the policy node's process).
        to_chunk: observation sent -> chunk received.
        to_command: observation sent -> first command that came out of it received.
        waits: chunk received -> the tick in which the gateway executes it first begins.
        observations: how many were sent.
        model_ms: median of the inference that the policy node reports of itself.
        in_node_ms: its median and 99th percentile from the last message of an observation taken
            to the chunk published.
    """

    to_publish: list[float] = field(default_factory=list)
    to_chunk: list[float] = field(default_factory=list)
    to_command: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    observations: int = 0
    model_ms: float = 0.0
    in_node_ms: tuple[float, float] = (0.0, 0.0)


@dataclass
class Sustained:
    """A long run at one rate.

    Attributes:
        rate_hz: of the control loop.
        latencies_ms: of each observation that is decided on, sent -> chunk received; where all
            of them are, infinite when no chunk came.
        missed: deadlines. With a decision in each period: observations without a chunk within
            one. With longer chunks: control ticks at which no action was there in time.
        due: how many there were.
        held: control ticks in which the gateway had nothing valid to execute.
        ticks: of the gateway.
        overruns: deadlines without a decision, as the policy node counted itself.
        skipped: ticks that the gateway's loop left out, as it counted itself.
        memory: node -> MiB, every five seconds.
        seconds: how long it ran.
    """

    rate_hz: float
    latencies_ms: list[float]
    missed: int
    due: int
    held: int
    ticks: int
    overruns: int
    skipped: int
    memory: dict[str, list[float]]
    seconds: float

    def growth_mib(self, node: str) -> float:
        """Memory in the last tenth of the run less that in the first one, medians, MiB."""
        samples = self.memory[node]
        tenth = max(len(samples) // 10, 1)
        return statistics.median(samples[-tenth:]) - statistics.median(samples[:tenth])


@dataclass
class Swaps:
    """``first_action_ms``: from the request to the first command of the new version, each swap."""

    first_action_ms: list[float]
    missed: int
    held: int
    observations: int
    period_ms: float


def _after_warm_up(wire: Wire) -> None:
    wire.run(WARM_UP_S)
    wire.forget()


def _chunk_latencies(wire: Wire) -> list[float]:
    """Of each observation but the last ones, sent -> its chunk received, ms; inf: no chunk."""
    received = {chunk.observation_ns: chunk.received_ns for chunk in wire.chunks}
    stamps = list(wire.sent_ns)[:-IN_FLIGHT_PERIODS]
    return [
        (received[stamp] - wire.sent_ns[stamp]) * 1e-6 if stamp in received else float("inf")
        for stamp in stamps
    ]


def _first_ticks(wire: Wire) -> list[tuple[SeenChunk, SeenTick]]:
    """Each chunk that moved the robot, with the first tick that executed it."""
    chunks = {chunk.sequence: chunk for chunk in wire.chunks}
    found: dict[int, tuple[SeenChunk, SeenTick]] = {}
    for tick in wire.ticks:
        if not tick.hold and tick.sequence in chunks:
            found.setdefault(tick.sequence, (chunks[tick.sequence], tick))
    return list(found.values())


def _command_latencies(wire: Wire) -> list[float]:
    """Of each observation that moved the robot, sent -> first command received, ms."""
    return [
        (wire.commands_ns[tick.stamp_ns] - wire.sent_ns[chunk.observation_ns]) * 1e-6
        for chunk, tick in _first_ticks(wire)
        if tick.stamp_ns in wire.commands_ns and chunk.observation_ns in wire.sent_ns
    ]


def _run_in_steps(wire: Wire, seconds: float, step: Step, stretch: float = 1.0) -> None:
    """``Wire.run`` that tells a progress bar."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        part = min(left, 0.5)
        wire.run(part, stretch=stretch)
        step(part)


def measure_latency(run: Running, seconds: float, step: Step) -> Latencies:
    """Sensor to chunk and to command, with a sensor that is a little slower than nominal."""
    wire = run.wire
    _after_warm_up(wire)
    _run_in_steps(wire, seconds, step, STRETCH)
    sent = wire.sent_ns
    known = [chunk for chunk in wire.chunks if chunk.observation_ns in sent]
    status = wire.policy_status
    assert status is not None, "the wire waited for it"
    return Latencies(
        [(c.published_ns - sent[c.observation_ns]) * 1e-6 for c in known],
        [(c.received_ns - sent[c.observation_ns]) * 1e-6 for c in known],
        _command_latencies(wire),
        [(t.stamp_ns - c.received_ns) * 1e-6 for c, t in _first_ticks(wire)],
        len(sent),
        float(status.inference_p50_ms),
        (float(status.decision_p50_ms), float(status.decision_p99_ms)),
    )


def _overruns(wire: Wire) -> int:
    return int(wire.policy_status.missed_deadlines) if wire.policy_status is not None else 0


def _skipped(wire: Wire) -> int:
    return int(wire.gateway_status.missed_ticks) if wire.gateway_status is not None else 0


def sustain(run: Running, seconds: float, step: Step) -> Sustained:
    """Run at the task's rate, and count what came too late."""
    wire = run.wire
    _after_warm_up(wire)
    overruns, skipped = _overruns(wire), _skipped(wire)
    memory: dict[str, list[float]] = {POLICY: [], GATEWAY: []}

    def weigh() -> None:
        for node, samples in memory.items():
            samples.append(run.memory_mib(node))

    begin = time.monotonic()
    weigh()
    while (left := begin + seconds - time.monotonic()) > 0:
        _run_in_steps(wire, min(left, MEMORY_EVERY_S), step)
        weigh()
    latencies, held = _chunk_latencies(wire), sum(tick.hold for tick in wire.ticks)
    if wire.task.control.n_action_steps <= DECIDES_EACH_PERIOD:
        limit_ms = wire.period_s * 1e3
        missed, due = sum(latency > limit_ms for latency in latencies), len(latencies)
    else:
        latencies = [latency for latency in latencies if latency < float("inf")]
        missed, due = held, len(wire.ticks)
    return Sustained(
        wire.task.control.rate_hz,
        latencies,
        missed,
        due,
        held,
        len(wire.ticks),
        _overruns(wire) - overruns,
        _skipped(wire) - skipped,
        memory,
        time.monotonic() - begin,
    )


def swap(run: Running, bundles: Sequence[Path], count: int, step: Step) -> Swaps:
    """Change to another bundle again and again while the control loop runs."""
    wire = run.wire
    versions = [load_manifest(bundle).policy_version for bundle in bundles]
    rng = random.Random(0)
    _after_warm_up(wire)
    waits: list[float] = []
    ring = itertools.cycle(range(len(bundles)))
    next(ring)  # the first one is running
    for index in itertools.islice(ring, count):
        wire.run(rng.uniform(0.2, 0.4))
        seen, pushed_ns = len(wire.ticks), time.time_ns()
        wire.load_bundle(str(bundles[index]))

        first = partial(_first_of, wire, seen, versions[index])
        wire.expect(first, "an action of the new bundle")
        waits.append((first()[0].received_ns - pushed_ns) * 1e-6)
        step(1.0)
    wire.run(0.5)
    latencies = _chunk_latencies(wire)
    limit_ms = wire.period_s * 1e3
    return Swaps(
        waits,
        sum(latency > limit_ms for latency in latencies),
        sum(tick.hold for tick in wire.ticks),
        len(latencies),
        limit_ms,
    )


def _first_of(wire: Wire, seen: int, version: str) -> list[SeenTick]:
    """The first tick after the first ``seen`` ones that executed ``version``, or nothing."""
    return list(itertools.islice((t for t in wire.ticks[seen:] if t.version == version), 1))


def stop_often(run: Running, count: int, step: Step) -> list[float]:
    """Stop -> last moving command received, ms, for each of ``count`` stops; 0: none came after.

    Every other stop is a key of the reward keyboard (RewardEvent), the others a call of SetMode.
    """
    wire = run.wire
    rng = random.Random(0)
    _after_warm_up(wire)
    times: list[float] = []
    for number in range(count):
        wire.forget()
        wire.expect(lambda: bool(_moves(wire)), "motion before a stop")
        wire.run(rng.uniform(0.0, 2.0) * wire.period_s)
        before = len(wire.ticks)
        if number % 2:
            asked_ns = wire.press_stop()
        else:
            asked_ns = time.time_ns()
            wire.set_mode(ExecutedAction.MODE_STOPPED)
        wire.expect(partial(_stopped_since, wire, before), "the stop")
        wire.run(3.0 * wire.period_s)  # whatever was on its way, or moves in spite of the stop
        times.append(max((max(_moves(wire)) - asked_ns) * 1e-6, 0.0))
        wire.set_mode(ExecutedAction.MODE_POLICY, clear_stop=True)
        step(1.0)
    return times


def _moves(wire: Wire) -> list[int]:
    """When moving commands came, ns, of ticks since ``forget`` of which both messages did."""
    ticks = (tick for tick in wire.ticks if not tick.hold)
    return [wire.commands_ns[t.stamp_ns] for t in ticks if t.stamp_ns in wire.commands_ns]


def _stopped_since(wire: Wire, before: int) -> bool:
    return any(t.mode == ExecutedAction.MODE_STOPPED and t.hold for t in wire.ticks[before:])
