"""From what was measured to the figures of the benchmark ``policy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rl100.bench.frame import Figure, missing, proportion, quantile, single
from rl100.bench.policy.models import OpenVino, Pair
from rl100.bench.policy.scenarios import Latencies, Sustained, Swaps
from rl100.bench.policy.system import GATEWAY, POLICY
from rl100.statistics import ratio_interval

LEFT_OUT = "left out by --set"
NOTHING_CAME = "no observation of the run led to one"
NEW_FRAMES = (
    "all frames of the observation are new and encoded; the node encodes each frame once, so "
    "sensor_to_chunk of the same network may be less"
)
FEWEST_STOPS = 1000  # for a 99.9th percentile that is not merely the largest value


@dataclass
class Measured:
    """Results of the parts.

    ``reasons``: why a part is missing, by its name. ``refused``: what the system refused of the
    real-time settings at 100 Hz; None: it was not asked for any.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    openvino: dict[str, OpenVino] = field(default_factory=dict)
    bare_ms: list[float] = field(default_factory=list)
    latencies: Latencies | None = None
    sustained: dict[str, Sustained] = field(default_factory=dict)
    swaps: Swaps | None = None
    stops_ms: list[float] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    refused: Sequence[str] | None = None

    def why(self, part: str) -> str:
        """Why a part is missing."""
        return self.reasons.get(part, LEFT_OUT)


def _ratio(name: str, pair: Pair, note: str) -> Figure:
    value = float(np.median(pair.slow_ms) / np.median(pair.fast_ms))
    low, high = ratio_interval(pair.slow_ms, pair.fast_ms)
    return Figure(name, value, "x", len(pair.slow_ms), min(low, value), max(high, value), note=note)


def _known(name: str, value: float, unit: str, n: int, note: str) -> Figure:
    """A count or an extreme of n samples, which has no interval."""
    return Figure(name, value, unit, n, value, value, note=note)


def _quantile(name: str, samples: Sequence[float], fraction: float, note: str) -> Figure:
    if not samples:
        return missing(name, "ms", NOTHING_CAME)
    return quantile(name, samples, fraction, "ms", note)


def _p50(name: str, samples: Sequence[float], note: str = "") -> Figure:
    return _quantile(f"{name}_p50_ms", samples, 0.5, note)


def _p50_p99(name: str, samples: Sequence[float], note: str = "") -> list[Figure]:
    return [_p50(name, samples, note), _quantile(f"{name}_p99_ms", samples, 0.99, note)]


def model_figures(measured: Measured) -> list[Figure]:
    """Ratios between runtimes, and the times behind them."""
    figures: list[Figure] = []
    note = "same network, batch 1, one thread, in turns; medians"
    for size in ("full", "small"):
        name, network = f"onnx_vs_ddim10_unet_{size}_ratio", f"unet_{size}"
        pair = measured.pairs.get(network)
        if pair is None:
            figures.append(missing(name, "x", measured.why(network)))
            continue
        figures.append(_ratio(name, pair, note))
        figures.append(_p50(f"{network}_ddim10_eager", pair.slow_ms))
        read = "reading as many bytes as policy.onnx has: the least that one inference can take"
        figures.append(_p50(f"{network}_weights_read", pair.read_ms, read))
        figures.extend(_p50_p99(f"{network}_onnx", pair.fast_ms, NEW_FRAMES))
    for name, network in (
        ("openvino_vs_cpu_provider_ratio", "unet_full"),
        ("openvino_vs_cpu_provider_small_ratio", "unet_small"),
    ):
        found = measured.openvino.get(network)
        if found is None:
            figures.append(missing(name, "x", measured.why(f"openvino_{network}")))
            continue
        note = (
            f"onnxruntime-openvino {found.version}, one step, fp32, one thread, in turns with the "
            "CPU provider of the same build"
        )
        gap = "largest gap between both providers' actions, part of the action range"
        error = single(f"{network}_openvino_error", found.error, "fraction", gap)
        figures += [_ratio(name, found.pair, note), error]
    return figures


def latency_figures(measured: Measured) -> list[Figure]:
    """What the nodes add to the model, and the way from the sensor to the command."""
    found = measured.latencies
    names = [
        f"{name}_{p}_ms" for name in ("node_overhead", "sensor_to_command") for p in ("p50", "p99")
    ]
    if found is None:
        return [missing(name, "ms", measured.why("latency")) for name in names]
    bare = float(np.median(measured.bare_ms))
    note = (
        "observation published -> chunk published (one DDS hop, decoding, assembly and chunk "
        "included) minus the median of the bare model, skipnet at 100 Hz"
    )
    figures = _p50_p99("node_overhead", [value - bare for value in found.to_publish], note)
    note = (
        "last message of the observation published -> first command from it received, through "
        "both nodes, with a sensor that is a little slower than nominal"
    )
    figures += _p50_p99("sensor_to_command", found.to_command, note)
    figures += _p50_p99("sensor_to_chunk", found.to_chunk)
    note = (
        "chunk received -> the even tick that executes it first; part of sensor_to_command; "
        "negative where the gateway had it before the benchmark"
    )
    figures += _p50_p99("gateway_wait", found.waits, note)
    figures += _p50_p99("skipnet_bare_model", measured.bare_ms, "paced as in the control loop")
    note = "as the policy node reports of itself"
    figures.append(single("skipnet_model_in_node_p50_ms", found.model_ms, "ms", note))
    note = "last message of the observation taken -> chunk published, as the policy node reports"
    for p, value in zip(("p50", "p99"), found.in_node_ms, strict=True):
        figures.append(single(f"decision_in_node_{p}_ms", value, "ms", note))
    unused = found.observations - len(found.to_command)
    figures.append(proportion("observations_without_command", max(unused, 0), found.observations))
    return figures


def _sustained(name: str, measured: Measured, network: str) -> list[Figure]:
    found = measured.sustained.get(network)
    if found is None:
        return [missing(f"deadline_miss_rate_{name}", "fraction", measured.why(name))]
    figures = [
        proportion(f"deadline_miss_rate_{name}", found.missed, max(found.due, 1)),
        single(f"duration_{name}", found.seconds, "s"),
        proportion(f"gateway_hold_rate_{name}", found.held, max(found.ticks, 1)),
        single(f"policy_missed_deadlines_{name}", float(found.overruns), "count"),
        single(f"gateway_missed_ticks_{name}", float(found.skipped), "count"),
    ]
    known = [value for value in found.latencies_ms if np.isfinite(value)]
    figures += _p50_p99(f"sensor_to_chunk_{name}", known)
    for node, label in ((POLICY, "policy"), (GATEWAY, "gateway")):
        growth = found.growth_mib(node)
        note = f"from {found.memory[node][0]:.0f} MiB"
        figures.append(single(f"{label}_memory_growth_{name}", growth, "MiB", note))
    return figures


def _realtime(measured: Measured) -> Figure:
    """Whether nodes and benchmark ran with real-time priority: it changes every latency."""
    if measured.refused is None:
        return missing("realtime", "0 or 1", measured.why("realtime"))
    note = "; ".join(dict.fromkeys(measured.refused)) or "SCHED_FIFO, locked memory"
    return single("realtime", float(not measured.refused), "0 or 1", note)


def swap_figures(measured: Measured) -> list[Figure]:
    """Bundles changed while the loop runs."""
    found = measured.swaps
    if found is None:
        units = (("swap_missed_ticks", "count"), ("swap_to_first_action_ms", "ms"))
        return [missing(name, unit, measured.why("swap")) for name, unit in units]
    swaps, waits = len(found.first_action_ms), found.first_action_ms
    note = f"observations without a chunk within {found.period_ms:g} ms, during {swaps} swaps"
    missed = _known("swap_missed_ticks", float(found.missed), "count", found.observations, note)
    note = f"the longest of {swaps}: load_bundle called -> command of the new version received"
    longest = _known("swap_to_first_action_ms", max(waits), "ms", swaps, note)
    return [
        missed,
        longest,
        _p50("swap_to_first_action", waits),
        single("swap_gateway_holds", float(found.held), "count"),
    ]


def stop_figures(measured: Measured) -> list[Figure]:
    """From a stop to the last command that moves."""
    stops = measured.stops_ms
    if not stops:
        return [missing("stop_latency_p999_ms", "ms", measured.why("stop"))]
    note = "stop sent -> last moving command received; reward key and SetMode in turns"
    if len(stops) < FEWEST_STOPS:
        note += f"; of so few it is the longest of {len(stops)}"
    return [
        quantile("stop_latency_p999_ms", stops, 0.999, "ms", note),
        _p50("stop_latency", stops),
    ]


#: What the benchmark is for; the other figures explain these.
HEADLINES = (
    "onnx_vs_ddim10_unet_full_ratio",
    "onnx_vs_ddim10_unet_small_ratio",
    "openvino_vs_cpu_provider_ratio",
    "node_overhead_p50_ms",
    "node_overhead_p99_ms",
    "sensor_to_command_p50_ms",
    "sensor_to_command_p99_ms",
    "deadline_miss_rate_100hz_skipnet",
    "deadline_miss_rate_30hz_unet",
    "swap_missed_ticks",
    "swap_to_first_action_ms",
    "stop_latency_p999_ms",
)


def figures_of(measured: Measured) -> list[Figure]:
    """All figures, the headlines first; those that were not measured have no value and say why."""
    figures = model_figures(measured) + latency_figures(measured)
    figures += _sustained("100hz_skipnet", measured, "skipnet")
    figures += _sustained("30hz_unet", measured, "unet_full")
    if "unet_small" in measured.sustained:
        figures += _sustained("30hz_unet_small", measured, "unet_small")
    figures += swap_figures(measured) + stop_figures(measured)
    figures.append(_realtime(measured))
    place = {name: index for index, name in enumerate(HEADLINES)}
    return sorted(figures, key=lambda figure: place.get(figure.name, len(place)))
