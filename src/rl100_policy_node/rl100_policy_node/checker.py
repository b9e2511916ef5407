"""Checks a large bundle in a process of its own, so that the running policy does not notice.

Parsing hundreds of megabytes holds Python's interpreter lock for a third of a second. So the node
starts ``python -m rl100_policy_node.checker BUNDLE TASK COPY`` at the lowest priority; it verifies
the bundle and leaves a copy whose weights ONNX Runtime maps without that lock.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rl100_contracts.bundle import DENOISER, MANIFEST, POLICY, SELFTEST, TASK, verify_bundle
from rl100_contracts.errors import ContractError, run_main
from rl100_contracts.task import Task, load_task

LARGE_BYTES = 32 * 1024 * 1024


def copy_checked(folder: Path, task: Task, target: Path) -> None:
    """Verify a bundle and write what ``PolicyRuntime`` needs of it to ``target``.

    Raises:
        ContractError: the bundle does not fit; one sentence that names the file.
    """
    from rl100_policy_node.graphs import split_model

    manifest = verify_bundle(folder, task)
    for name in (POLICY, DENOISER):
        split_model(folder / name, target / name)
    for name in (MANIFEST, SELFTEST):
        if name == MANIFEST or name in manifest.files:
            shutil.copyfile(folder / name, target / name)


def is_large(folder: Path) -> bool:
    """Whether loading this bundle would hold the interpreter lock for longer than a tick or two."""
    sizes = [path.stat().st_size for path in folder.glob("*.onnx") if path.is_file()]
    return max(sizes, default=0) > LARGE_BYTES


@contextmanager
def checked_copy(folder: Path, task: Task) -> Iterator[Path]:
    """A checked copy that another process makes, removed at the end (its weights stay mapped).

    Raises:
        ContractError: the bundle does not fit, or the process died.
    """
    with tempfile.TemporaryDirectory(prefix="rl100-bundle-") as name:
        target = Path(name)
        (target / TASK).write_text(task.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "rl100_policy_node.checker"]
        command += [str(folder), str(target / TASK), str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            if done.returncode == 2 and said:
                raise ContractError(said[-1].removeprefix("error: "))
            reason = said[-1] if said else f"exit status {done.returncode}"
            raise ContractError(f"{folder}: the check of the bundle broke off ({reason})")
        yield target


def _main() -> int:
    # Ctrl-C in a terminal reaches this process as well; its parent knows what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(19)
    folder, task, target = (Path(text) for text in sys.argv[1:4])
    copy_checked(folder, load_task(str(task)), target)
    return 0


if __name__ == "__main__":
    run_main(_main)
