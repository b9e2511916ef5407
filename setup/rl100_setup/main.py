"""Order of the set-up: what is there already, what is missing, one step after the other."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from . import packages, ros, workspace
from .common import Paths, Reporter, SetupError, log_tail

VERSION = 1  # raise it when an environment made by an older set-up must be brought up to date


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C but with its own exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the set-up; returns the exit status (130 on Ctrl-C)."""
    parser = argparse.ArgumentParser(
        prog="rl100 setup", description="Make .venv, install ROS 2 and build the workspace."
    )
    parser.add_argument("--rebuild", action="store_true", help="build every ROS package again")
    arguments = parser.parse_args(argv)
    paths = Paths(Path(__file__).resolve().parents[2])
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # ./rl100 holds Ctrl-C back
        with _only_one(paths):
            _set_up(paths, arguments.rebuild)
    except SetupError as error:
        return _failed(paths, str(error))
    except PermissionError as error:
        return _failed(paths, f"no permission for {error.filename}")
    except OSError as error:
        return _failed(paths, f"{error.strerror}: {error.filename}")
    except KeyboardInterrupt as interrupt:
        print("\nrl100 setup: interrupted; run it again and it goes on.", file=sys.stderr)
        return 143 if isinstance(interrupt, _Terminated) else 130
    return 0


def _failed(paths: Paths, message: str) -> int:
    print(f"\nrl100 setup: {message}.", file=sys.stderr)
    tail = log_tail(paths)
    if tail and any(word in message for word in ("failed", "could not build", "imported")):
        print(f"  last lines of {paths.log}:\n{tail}", file=sys.stderr)
    return 1


def _set_up(paths: Paths, rebuild: bool) -> None:
    reporter = Reporter()
    started = time.monotonic()
    if " " in str(paths.root) or ":" in str(paths.root):
        raise SetupError(
            f"'{paths.root}' has a space or a colon in it, which ROS 2's build tools and start "
            "scripts cannot handle; move the folder to a path without"
        )
    stamp = _read(paths.stamp)
    which = _which_ros(paths, stamp)
    wanted = _wanted(paths, which)
    if paths.unfinished.exists() or not paths.python.exists():
        stamp = {}
    fresh = any(stamp.get(k) != wanted[k] for k in ("python", "root", "ros"))
    stale = fresh or any(stamp.get(k) != wanted[k] for k in ("lock", "version"))
    torch_missing = wanted["torch"] not in ("none", stamp.get("torch"))

    if stale or torch_missing:
        packages.check_tools()
        ros.check_platform(which, packages.base_python())
        where = f"sourced ROS 2 {which.name}" if which.sourced else "ROS 2 Jazzy from wheels"
        reporter.say(f"Python {wanted['python_version']}, {where}, log in .venv/rl100_setup.log")
        stamp = _install(paths, which, wanted, stamp, fresh, stale, reporter)
    env = packages.environment(paths, which)
    key = _digest_of(wanted["python"], wanted["root"], wanted["ros"], str(VERSION))
    build_started = time.monotonic()
    built = workspace.build(paths, key, env, reporter, again=rebuild)
    if built:
        stamp["build_s"] = round(time.monotonic() - build_started, 1)
    seconds = round(time.monotonic() - started, 1)
    if fresh:  # not after an interruption: that would measure the rest only
        stamp["setup_s"] = seconds
    if fresh or built:
        reporter.say(f"ready after {seconds} s")
    # Written even when nothing changed: its date tells ./rl100 that the lock file was looked at.
    _write(paths.stamp, stamp)


def _install(
    paths: Paths,
    which: ros.Ros,
    wanted: dict[str, str],
    stamp: dict[str, Any],
    fresh: bool,
    stale: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Bring .venv up to date and return its new stamp. Any interruption leaves it unfinished."""
    old_names = set(stamp.get("packages", []))
    if fresh:
        stamp = {}
        reporter.begin("making .venv")
        plain = packages.environment(paths, which, extra_libraries=False)
        packages.make_venv(paths, which.sourced, plain, reporter)
        reporter.end()
    paths.unfinished.touch()
    if stale:
        reporter.begin("installing the locked packages")
        env = packages.environment(paths, which)
        names = packages.install_locked(paths, not which.sourced, env, reporter)
        dropped = sorted(old_names - set(names))
        if dropped:
            packages.remove_packages(paths, dropped, env, reporter)
        stamp["packages"] = names
        if not which.sourced:
            env = packages.environment(paths, which)  # the wheels' library folders exist now
            include, numpy_include = packages.include_folders(paths, env)
            ros.mend_cmake_exports(paths, include, numpy_include)
        packages.check_rclpy(paths, env)
        reporter.end()
    if wanted["torch"] not in ("none", stamp.get("torch")):
        reporter.begin(f"installing torch {packages.TORCH} ({wanted['torch']} build)")
        env = packages.environment(paths, which)
        if "torch" in stamp:  # pip takes the CPU build for the CUDA one of the same version
            packages.remove_packages(paths, ["torch"], env, reporter)
        stamp["torch_version"] = packages.install_torch(paths, wanted["torch"], env, reporter)
        stamp["torch"] = wanted["torch"]
        reporter.end(stamp["torch_version"])
    stamp.update({k: v for k, v in wanted.items() if k != "torch"})
    stamp["ros_variables"] = which.variables
    _write(paths.stamp, stamp)
    paths.unfinished.unlink()
    return stamp


def _which_ros(paths: Paths, stamp: dict[str, Any]) -> ros.Ros:
    """The sourced ROS; else the one that .venv was made with, as long as it's still there."""
    found = ros.detect(paths.root, os.environ)
    made_with = stamp.get("ros", ros.WHEELS)
    if found.sourced or made_with == ros.WHEELS:
        return found
    variables: dict[str, str] = stamp.get("ros_variables", {})
    prefixes = variables.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if all(Path(prefix).is_dir() for prefix in prefixes):
        return ros.Ros(made_with, variables)
    return found


def _wanted(paths: Paths, which: ros.Ros) -> dict[str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return {
        "version": str(VERSION),
        "root": str(paths.root),
        "ros": which.name,
        "python": os.path.realpath(packages.base_python()),
        "python_version": version,
        "lock": _digest_of(paths.lock_file.read_text(encoding="utf-8"), packages.TORCH),
        "torch": packages.wanted_torch(),
    }


def _digest_of(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


@contextmanager
def _only_one(paths: Paths) -> Iterator[None]:
    """Two runs at once would write the same environment: the second one waits."""
    handle = os.open(paths.root / "setup", os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("rl100 setup: another set-up is at work here; waiting for it.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated
