"""Checks and prepares bundles in a process of its own, so that the running policy does not notice.

Hashing, parsing and optimising a bundle takes a core for a tenth of a second (large ones for
seconds), and parsing holds Python's interpreter lock. So a process of low priority does it
and leaves a copy that ONNX Runtime only has to map. It is started with the node and waits, because
Python and ONNX Runtime take longer to start than a bundle to check.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rl100_contracts.bundle import (
    MANIFEST,
    POLICY,
    SELFTEST,
    load_manifest,
    read_verified,
    verify_files,
    verify_manifest,
)
from rl100_contracts.errors import ContractError, run_main
from rl100_contracts.task import Task

CLOSE_TIMEOUT_S = 2.0
# Below the policy, but at 19 it would starve on a busy machine, and its bundle with it.
NICE = 10
# For glibc: keep memory for the next bundle, up to 128 MiB. To get its pages anew from the system
# each time takes a bundle of 30 MB a fifth of the time of its check. Blocks of 32 MiB, the most
# that glibc accepts here, and more go back at once.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}


class BundleChecker:
    """The process, seen from the node. One copy at a time; ``close`` from any thread.

    Args:
        task: that bundles must be made for.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process unless it runs; it is ready some tenths of a second later."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rl100_policy_node.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **KEEP_MEMORY},
        )
        _tell(self._process, self._task.model_dump(mode="json"))

    @contextmanager
    def copy(self, folder: Path, graphs: Sequence[str], *, optimise: bool) -> Iterator[Path]:
        """A checked copy of a bundle, removed at the end (its weights stay mapped).

        Args:
            folder: the bundle.
            graphs: file names of the graphs that are wanted.
            optimise: for the CPU of this machine, so that loading does not have to.

        Raises:
            ContractError: the bundle does not fit, or the process died.
        """
        self.start()
        process = self._process
        assert process is not None and process.stdout is not None
        with tempfile.TemporaryDirectory(prefix="rl100-bundle-") as target:
            request = {"folder": str(folder), "target": target, "graphs": list(graphs)}
            _tell(process, request | {"optimise": optimise})
            line = process.stdout.readline()
            if not line:
                status = process.wait()
                raise ContractError(
                    f"{folder}: the check of the bundle broke off (exit status {status})"
                )
            if refusal := json.loads(line):
                raise ContractError(refusal)
            yield Path(target)

    def close(self) -> None:
        """End the process, also in the middle of a copy."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tell(process: subprocess.Popen[str], what: object) -> None:
    """Send a line; that the process died is seen when it does not answer."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()


def copy_checked(
    folder: Path, task: Task, target: Path, graphs: Sequence[str], *, optimise: bool
) -> None:
    """Verify a bundle and write what ``PolicyRuntime`` needs of it to ``target``.

    Raises:
        ContractError: the bundle does not fit; one sentence that names the file.
    """
    from rl100_policy_node.framewise import prepare_policy
    from rl100_policy_node.graphs import prepare_model, read_model

    manifest = verify_manifest(folder, task)
    # The copy, which the node reads, must be the manifest that the files are checked by.
    shutil.copyfile(folder / MANIFEST, target / MANIFEST)
    if load_manifest(target) != manifest:
        raise ContractError(f"{folder / MANIFEST}: changed while it was checked, so push it again")
    wanted = {*graphs, SELFTEST}
    with ThreadPoolExecutor(1) as beside:
        # What is not read here, the weights for training above all, is most of a bundle.
        others = beside.submit(verify_files, folder, manifest, manifest.files.keys() - wanted)
        for name in graphs:
            model = read_model(folder / name, read_verified(folder, manifest, name))
            if name == POLICY:
                prepare_policy(model, manifest.n_obs_steps, target, optimise=optimise)
            else:
                prepare_model(model, target / name, optimise=optimise)
        if SELFTEST in manifest.files:
            (target / SELFTEST).write_bytes(read_verified(folder, manifest, SELFTEST))
        others.result()


def _main() -> int:
    """In the process: the task, then requests, a line each; each request gets a line back."""
    # Ctrl-C in a terminal reaches this process as well; the node knows what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A real-time priority of the node is not for this process: it would take a core from drivers
    # and cameras that have none.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(NICE)
    # A library that prints must not answer in our place.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import rl100_policy_node.framewise  # noqa: F401 (so that the first request does not wait for it)

    task = Task.model_validate_json(sys.stdin.readline())
    for line in sys.stdin:  # until the node closes it, or ends
        with suppress(BrokenPipeError):
            answers.write(json.dumps(_handle(task, json.loads(line))) + "\n")
            answers.flush()
    return 0


def _handle(task: Task, request: dict[str, Any]) -> str:
    """Do what is asked for; why not, or an empty string."""
    folder, target = Path(request["folder"]), Path(request["target"])
    try:
        copy_checked(folder, task, target, request["graphs"], optimise=request["optimise"])
    except ContractError as error:
        return str(error)
    except Exception as error:  # whatever it is, the next bundle can be checked
        return f"{folder}: the check of the bundle broke off ({error!r})"
    return ""


if __name__ == "__main__":
    run_main(_main)
