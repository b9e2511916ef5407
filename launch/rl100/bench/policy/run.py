"""The benchmark ``policy``: its parts, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rl100.bench.frame import Bench, Figure, Options
from rl100.bench.policy.bundles import SKIPNET, UNET_FULL, UNET_SMALL, BundleStore, Network
from rl100.bench.policy.plan import Plan, plan_of
from rl100_contracts.errors import ContractError

NO_FULL = "it takes long to make its bundle; a run without --quick makes and keeps it"
NO_OPENVINO = "this ONNX Runtime has no OpenVINO; --openvino DIR makes an environment that has"
BARE_CALLS = 300
PLOT = "policy.png"


class Parts:
    """A progress bar for each part, with the time that it still takes. A context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
        )

    def __enter__(self) -> Parts:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, sentence: str) -> None:
        """Print above the bars."""
        self._bars.console.print(sentence, highlight=False, soft_wrap=True)

    @contextmanager
    def part(self, title: str, total: float) -> Iterator[Callable[[float], None]]:
        """A bar; the function that it gives is told what was done of ``total``."""
        bar = self._bars.add_task(title, total=total)
        yield lambda done: self._bars.advance(bar, done)
        self._bars.update(bar, completed=total)


class Measurement:
    """Runs the parts of a plan.

    Args:
        plan: what is measured, and how long.
        options: of the benchmark; ``folder`` keeps the bundles.
        parts: the progress bars.
        skipnet: the network of the 100 Hz parts.
        unets: the small and the full U-Net.
    """

    def __init__(
        self,
        plan: Plan,
        options: Options,
        parts: Parts,
        skipnet: Network = SKIPNET,
        unets: tuple[Network, Network] = (UNET_SMALL, UNET_FULL),
    ) -> None:
        from rl100.bench.policy.figures import Measured

        self.measured = Measured()
        self._plan, self._options, self._parts = plan, options, parts
        self._skipnet = skipnet
        self._store = BundleStore(options.folder / "bundles")
        self._log = options.folder / "log"
        small, full = unets
        self._unets: list[tuple[str, Network]] = []
        if plan.rounds or plan.unet_s:
            with_full = bool(plan.full) or self._store.ready(full)
            if with_full:
                self._unets = [("unet_small", small), ("unet_full", full)]
            else:
                self._unets = [("unet_small", small)]
                for part in ("unet_full", "openvino_unet_full", "30hz_unet"):
                    self.measured.reasons[part] = NO_FULL

    def run(self) -> None:
        """Measure everything that the plan asks for; a part that fails leaves the others.

        Raises:
            ContractError: a bundle cannot be made.
        """
        self._make_bundles()
        if self._plan.rounds:
            self._compare()
            self._compare_openvino()
        if self._at_100_hz:
            self._run_skipnet()
        if self._plan.unet_s:
            self._run_unet()

    @property
    def _at_100_hz(self) -> bool:
        plan = self._plan
        return any((plan.latency_s, plan.skipnet_s, plan.swaps, plan.stops))

    def _make_bundles(self) -> None:
        wanted = [(self._skipnet, 0)] if self._at_100_hz else []
        if self._plan.swaps:
            wanted.append((self._skipnet, 1))
        wanted += [(network, 0) for _, network in self._unets]
        with self._parts.part("bundles", len(wanted)) as step:
            for network, seed in wanted:
                self._store.bundle(network, seed)
                step(1)

    @contextmanager
    def _part(self, name: str, title: str, total: float) -> Iterator[Callable[[float], None]]:
        """A part with its bar; its failure becomes the reason of the figures that it lacks."""
        try:
            with self._parts.part(title, total) as step:
                yield step
        except ContractError as error:
            self._failed(error, name)

    def _failed(self, error: ContractError, *parts: str) -> None:
        self._parts.say(f"{', '.join(parts)}: {error}")
        for part in parts:
            self.measured.reasons[part] = str(error)

    # --- models

    def _compare(self) -> None:
        from rl100.bench.policy.models import ddim_against_one_step

        for name, network in self._unets:
            title = f"DDIM and one step, {name}"
            with self._part(name, title, self._plan.rounds) as step:
                self.measured.pairs[name] = ddim_against_one_step(
                    network, self._store.bundle(network), self._plan.rounds, lambda: step(1)
                )

    def _compare_openvino(self) -> None:
        from rl100.bench.policy.models import cpu_against_openvino, openvino_python

        wanted, folder = [f"openvino_{name}" for name, _ in self._unets], self._options.openvino
        try:
            # A bar only where there is something to do: making the environment takes a minute.
            with self._parts.part("OpenVINO, environment", 1) if folder else nullcontext():
                python = openvino_python(folder)
        except ContractError as error:
            return self._failed(error, *wanted)
        for name, network in self._unets:
            if python is None:
                self.measured.reasons.setdefault(f"openvino_{name}", NO_OPENVINO)
                continue
            with self._part(f"openvino_{name}", f"OpenVINO, {name}", 1):
                self.measured.openvino[name] = cpu_against_openvino(
                    python, network, self._store.bundle(network), self._plan.rounds
                )

    # --- nodes

    def _run_skipnet(self) -> None:
        try:
            self._measure_skipnet()
        except ContractError as error:  # the nodes do not come up
            self._failed(error, "latency", "100hz_skipnet", "swap", "stop")

    def _measure_skipnet(self) -> None:
        from rl100.bench.policy import scenarios
        from rl100.bench.policy.system import running

        plan, measured = self._plan, self.measured
        bundle = self._store.bundle(self._skipnet)
        if plan.latency_s:
            self._bare(bundle)
        with running(bundle, self._log, realtime=bool(plan.realtime)) as run:
            measured.refused = run.refused if plan.realtime else None
            if plan.latency_s:
                with self._part("latency", "sensor to command", plan.latency_s) as step:
                    measured.latencies = scenarios.measure_latency(run, plan.latency_s, step)
                self._bare(bundle)
            if plan.skipnet_s:
                rate = self._skipnet.rate_hz
                title = f"Skip-Net at {rate:g} Hz"
                with self._part("100hz_skipnet", title, plan.skipnet_s) as step:
                    measured.sustained["skipnet"] = scenarios.sustain(run, plan.skipnet_s, step)
            if plan.swaps:
                bundles = [bundle, self._store.bundle(self._skipnet, 1)]
                with self._part("swap", "swaps", plan.swaps) as step:
                    measured.swaps = scenarios.swap(run, bundles, plan.swaps, step)
            if plan.stops:
                with self._part("stop", "stops", plan.stops) as step:
                    measured.stops_ms = scenarios.stop_often(run, plan.stops, step)

    def _bare(self, bundle: Path) -> None:
        """The model by itself, before and after what it is compared with."""
        from rl100.bench.policy.models import bare_model_ms

        period_s = 1.0 / self._skipnet.rate_hz
        count = min(BARE_CALLS, max(round(self._plan.latency_s / period_s / 4), 10))
        self.measured.bare_ms += bare_model_ms(self._skipnet, bundle, count, period_s)

    def _run_unet(self) -> None:
        from rl100.bench.policy import scenarios
        from rl100.bench.policy.system import running

        name, network = self._unets[-1]  # the full one when it is there
        seconds, rate, realtime = self._plan.unet_s, network.rate_hz, bool(self._plan.realtime)
        try:
            with (
                running(self._store.bundle(network), self._log, realtime=realtime) as run,
                self._parts.part(f"{name} at {rate:g} Hz", seconds) as step,
            ):
                self.measured.sustained[name] = scenarios.sustain(run, seconds, step)
        except ContractError as error:
            self._failed(error, "30hz_unet")


def quiet_maths() -> None:
    """One thread in the libraries of this process too, as the nodes have it."""
    from rl100.system_parts import QUIET_MATHS

    for key, value in QUIET_MATHS.items():
        os.environ.setdefault(key, value)


def run(options: Options) -> list[Figure]:
    """Measure; about half an hour, ``quick`` about a minute.

    Raises:
        ContractError: a wrong ``--set``, or a bundle cannot be made.
    """
    plan = plan_of(options.quick, options.overrides)
    quiet_maths()
    from rl100.bench.policy.figures import figures_of
    from rl100.bench.policy.plot import save_plot

    console = Console(stderr=True)
    with Parts(console) as parts:
        measurement = Measurement(plan, options, parts)
        measurement.run()
    path = save_plot(measurement.measured, options.folder / PLOT)
    console.print(f"plot: {path}", soft_wrap=True)
    return figures_of(measurement.measured)


BENCH = Bench("policy", "inference, nodes and the wire: ratios, latencies, deadlines, stop", run)
