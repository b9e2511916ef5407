"""The Meta-World extra: an environment of its own, because Meta-World pins an older MuJoCo.

Run through `make metaworld`. A second run does nothing but compare a checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from . import packages, ros
from .common import Paths, Reporter, SetupError, log_tail

OLDEST, NEWEST = (3, 10), (3, 13)
# Folders of the workspace that the extra imports from, without ROS.
SOURCES = ("launch", "src/rl100_contracts", "src/rl100_perception", "src/rl100_trainer")


@dataclass(frozen=True)
class ExtraPaths(Paths):
    """The extra's environment and lock file in place of the workspace's."""

    @property
    def venv(self) -> Path:
        return self.root / ".venv-metaworld"

    @property
    def lock_file(self) -> Path:
        return self.root / "setup" / "metaworld.lock"


def main() -> int:
    """Make the environment where it is missing or out of date; returns the exit status."""
    paths = ExtraPaths(Path(__file__).resolve().parents[2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        _set_up(paths)
    except SetupError as error:
        return _failed(paths, str(error))
    except OSError as error:
        return _failed(paths, f"{error.strerror}: {error.filename}")
    except KeyboardInterrupt:
        print("\nrl100 setup: interrupted; run it again.", file=sys.stderr)
        return 130
    return 0


def _failed(paths: Paths, message: str) -> int:
    print(f"\nrl100 setup: {message}.", file=sys.stderr)
    tail = log_tail(paths)
    if tail and "failed" in message:
        print(f"  last lines of {paths.log}:\n{tail}", file=sys.stderr)
    return 1


def _set_up(paths: Paths) -> None:
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"Meta-World's MuJoCo needs Python 3.10 to 3.13 and this is {version[0]}.{version[1]}; "
            "name another one, for example PYTHON=python3.12 make metaworld"
        )
    torch = "none" if packages.wanted_torch() == "none" else "cpu"
    with paths.lock_file.open(encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, the second one waits
        python = os.path.realpath(packages.base_python())
        wanted = "\0".join((lock.read(), packages.TORCH, torch, str(paths.root), python, *SOURCES))
        digest = hashlib.sha256(wanted.encode()).hexdigest()
        if not (_stamp(paths) == digest and paths.python.exists()):
            _install(paths, torch)
            paths.stamp.write_text(digest + "\n", encoding="utf-8")


def _stamp(paths: Paths) -> str:
    try:
        return paths.stamp.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _install(paths: Paths, torch: str) -> None:
    """Make the environment anew; it has no stamp until everything is in it."""
    reporter, which = Reporter(), ros.Ros(ros.WHEELS, {})
    reporter.say(f"log in {paths.log.relative_to(paths.root)}")
    env = packages.environment(paths, which, extra_libraries=False)
    reporter.begin(f"making {paths.venv.name}")
    packages.make_venv(paths, False, env, reporter)
    reporter.end()
    reporter.begin("installing Meta-World and the other locked packages")
    packages.install_locked(paths, False, env, reporter)
    reporter.end()
    if torch != "none":
        reporter.begin(f"installing torch {packages.TORCH} (cpu build)")
        reporter.end(packages.install_torch(paths, torch, env, reporter))
    (site,) = paths.venv.glob("lib/python3.*/site-packages")
    folders = [str(paths.root / source) for source in SOURCES]
    (site / "rl100.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
    paths.unfinished.unlink()


if __name__ == "__main__":
    sys.exit(main())
