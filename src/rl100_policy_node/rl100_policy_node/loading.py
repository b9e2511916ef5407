"""Loading a bundle beside the running one, and going back to the previous one. No ROS in here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rl100_contracts.bundle import DENOISER, POLICY
from rl100_contracts.errors import ContractError
from rl100_contracts.task import Task
from rl100_node.realtime import behind_loops
from rl100_policy_node.checker import BundleChecker
from rl100_policy_node.providers import CPU, choose_provider
from rl100_policy_node.runtime import PolicyRuntime

Done = Callable[[PolicyRuntime | ContractError], object]


class BundleLoader:
    """Loads one bundle at a time in a thread of its own.

    Args:
        task: that bundles must be made for.
        provider: of the inference.
        threads: of the inference.
        gently: a policy runs beside it, so bundles are checked and prepared in another process.
    """

    def __init__(self, task: Task, provider: str, threads: int, *, gently: bool) -> None:
        self._task, self._provider, self._threads = task, provider, threads
        self._checker = BundleChecker(task) if gently else None
        self._busy = threading.Lock()

    def load(self, folder: Path, *, chain: bool, gently: bool = False) -> PolicyRuntime:
        """Check, load, test and warm up a bundle, with its K-step graph when ``chain``.

        Raises:
            ContractError: it does not fit; one sentence that names the file.
        """
        graphs = [POLICY, DENOISER] if chain else [POLICY]
        with self._source(folder, graphs, gently) as checked:
            return PolicyRuntime(
                folder,
                self._task,
                provider=self._provider,
                threads=self._threads,
                chain=chain,
                checked=checked,
            )

    def load_chain(self, runtime: PolicyRuntime, *, gently: bool = False) -> PolicyRuntime:
        """Load the K-step graph of a bundle that runs; raises ContractError."""
        if not runtime.has_chain:
            with self._source(runtime.folder, [DENOISER], gently) as checked:
                runtime.load_chain(checked)
        return runtime

    def _source(
        self, folder: Path, graphs: Sequence[str], gently: bool
    ) -> AbstractContextManager[Path | None]:
        if gently and self._checker is not None:
            # What is optimised for the CPU is of no use to another provider.
            optimise = choose_provider(self._provider).name == CPU
            return self._checker.copy(folder, graphs, optimise=optimise)
        return nullcontext()

    def start(self) -> None:
        """Have the other process ready for the first bundle; raises ContractError."""
        if self._checker is not None:
            self._checker.start()

    def close(self) -> None:
        """End the other process."""
        if self._checker is not None:
            self._checker.close()

    def begin(self, load: Callable[[], PolicyRuntime], done: Done) -> None:
        """Call ``load`` in the background; ``done`` gets its result or error, in that thread.

        Raises:
            ContractError: another bundle is being loaded.
        """
        if not self._busy.acquire(blocking=False):
            raise ContractError("another bundle is being loaded: try again when it runs")

        def work() -> None:
            result: PolicyRuntime | ContractError
            try:
                with behind_loops():
                    result = load()
            except ContractError as error:
                result = error
            except Exception as error:  # whatever it is, the running policy goes on
                result = ContractError(f"the bundle cannot be loaded ({error!r})")
            finally:
                self._busy.release()
            done(result)

        # A daemon: a node that ends does not wait for it.
        threading.Thread(target=work, daemon=True, name="loader").start()
