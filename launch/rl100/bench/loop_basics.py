"""The benchmark ``loop_basics``: set-up time, speed of the simulated loop, success of the demo."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from rl100.bench.frame import Bench, Figure, Options, mean, proportion, single
from rl100_contracts.errors import ContractError

SETUP_FILE = "rl100_setup.json"


def setup_seconds(prefix: Path) -> float:
    """Seconds that ``make setup`` took for the environment in ``prefix``.

    Raises:
        ContractError: the environment was not made by ``make setup``.
    """
    path = prefix / SETUP_FILE
    if not path.is_file():
        raise ContractError(f"{path} is missing: start through ./rl100 after make setup")
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["setup_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path} does not tell setup_s: run make setup again") from error


def direct_steps_per_s(episodes: int) -> list[float]:
    """Control steps per second of the loop in process (world, depth image, cloud, observation),
    one value for each episode."""
    from rl100.direct_env import DirectEnv
    from rl100_contracts.task import load_task

    task = load_task("push")
    env = DirectEnv(task)
    high = np.asarray(task.action.high, dtype=np.float32)
    rates = []
    for seed in range(episodes + 1):
        rng = np.random.default_rng(seed)
        env.reset(seed)
        started, steps, finished = time.perf_counter(), 0, False
        while not finished:
            action = high * rng.uniform(-1, 1, high.shape).astype(np.float32)
            step = env.step(action)
            steps, finished = steps + 1, step.terminated or step.truncated
        rates.append(steps / (time.perf_counter() - started))
    return rates[1:]  # the first one warms up


def run(options: Options) -> list[Figure]:
    """Measure; runs the demo (minutes; ``quick``: the short one).

    Raises:
        ContractError: the workspace is not set up, or the demo fails.
    """
    from rl100.demo.driver import FULL, QUICK, run_demo

    figures = [
        single("setup_s", setup_seconds(Path(sys.prefix)), "s"),
        mean("lockstep_steps_per_s_direct", direct_steps_per_s(5 if options.quick else 20), "1/s"),
    ]
    # Progress goes to standard error, so that the table stays alone on standard output.
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rl100-bench-") as folder:
        result = run_demo(Path(folder), QUICK if options.quick else FULL, 0, console)
    demonstrations = result.demonstrations
    if demonstrations is not None:
        rates = [r.steps / r.wall_s for r in demonstrations.results if r.steps]
        figures.append(mean("lockstep_steps_per_s_ros", rates, "1/s"))
    success = {e.name: (e.successes, len(e.results)) for e in result.evaluations}
    figures += [
        proportion("bc_success", *success["k_step"]),
        proportion("one_step_success", *success["one_step"]),
        single("export_parity", result.export_parity, "of action range"),
        *(single(f"{phase.replace(' ', '_')}_s", s, "s") for phase, s in result.seconds.items()),
    ]
    return figures


BENCH = Bench("loop_basics", "set-up time, steps per second, success rates of the demo", run)
