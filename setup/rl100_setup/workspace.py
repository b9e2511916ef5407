"""Build what changed with colcon, and write the environment file that `./rl100` reads."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import Paths, Reporter, SetupError, run_logged

BASES = ("src", "launch")
SKIPPED_FOLDERS = frozenset({"test", "tests", "__pycache__", ".pytest_cache", ".mypy_cache",
                             ".ruff_cache"})  # fmt: skip
LIST_VARIABLES = ("PATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH",
                  "LD_LIBRARY_PATH")  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A ROS package and the checksum of everything that a build of it copies or compiles."""

    name: str
    folder: Path
    digest: str


def find_packages(root: Path) -> list[Package]:
    """All packages below `src/` and in `launch/`, by name."""
    manifests = [*root.glob("src/*/package.xml"), *root.glob("launch/package.xml")]
    found = []
    for manifest in manifests:
        match = re.search(r"<name>\s*([A-Za-z0-9_-]+)\s*</name>", manifest.read_text("utf-8"))
        if match is None:
            raise SetupError(f"{manifest.relative_to(root)} has no <name>")
        found.append(Package(match[1], manifest.parent, _digest(manifest.parent)))
    return sorted(found, key=lambda package: package.name)


def _digest(folder: Path) -> str:
    """Checksum over the files that matter to a build.

    Python modules don't: they are linked, not copied. `setup.py` and launch files do.
    """
    total = hashlib.sha256()
    for file in sorted(_build_files(folder)):
        total.update(str(file.relative_to(folder)).encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _build_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and "egg-info" not in f]
        for name in files:
            if name.endswith((".pyc", "~", ".swp")):
                continue
            if name.endswith(".py") and name != "setup.py" and not name.endswith(".launch.py"):
                continue
            yield Path(parent) / name


def build(paths: Paths, key: str, env: dict[str, str], reporter: Reporter, again: bool) -> bool:
    """Build the packages that changed since the last run; returns whether anything was built."""
    packages = find_packages(paths.root)
    before = _read_stamp(paths)
    if again or before.get("key") != key:
        for folder in (paths.build, paths.install):
            shutil.rmtree(folder, ignore_errors=True)
        before = {}
    done: dict[str, str] = dict(before.get("packages", {}))
    gone = sorted(set(done) - {p.name for p in packages})
    for name in gone:
        for folder in (paths.build, paths.install):
            shutil.rmtree(folder / name, ignore_errors=True)
        del done[name]
    todo = [p for p in packages if done.get(p.name) != p.digest]
    if not todo and not gone and paths.env_file.exists():
        return False

    paths.install.mkdir(exist_ok=True)
    if todo:
        reporter.begin(f"building {len(todo)} of {len(packages)} ROS packages")
        command = [
            "colcon", "--log-base", "log", "build", "--symlink-install", "--continue-on-error",
            "--base-paths", *BASES, "--event-handlers", "console_direct+",
            "--packages-select", *(p.name for p in todo),
            "--cmake-args", f"-DPython3_EXECUTABLE={paths.python}", "--no-warn-unused-cli",
        ]  # fmt: skip
        if shutil.which("ninja", path=env["PATH"]):
            command += ["-G", "Ninja"]
        # colcon's own choice (-jN -lN) slows to one compiler at a time on a machine that is busy.
        if "-j" not in env.get("MAKEFLAGS", ""):
            env = {**env, "MAKEFLAGS": f"-j{os.cpu_count() or 1}"}
        # Forget the packages first: an interrupted build must not count as built.
        for package in todo:
            done.pop(package.name, None)
        _write_stamp(paths, key, done)
        finished = run_logged(command, env, paths, reporter)
        failed = set(re.findall(r"^Failed\s+<<<\s+(\S+)", finished.output, re.M))
        failed |= set(re.findall(r"^Aborted\s+<<<\s+(\S+)", finished.output, re.M))
        built = set(re.findall(r"^Finished\s+<<<\s+(\S+)", finished.output, re.M)) - failed
        done.update({p.name: p.digest for p in todo if p.name in built})
        _write_env(paths, env)
        _write_stamp(paths, key, done)
        missing = [p.name for p in todo if p.name not in built]
        if missing:
            raise SetupError(f"colcon could not build {', '.join(missing)}")
        reporter.end()
    else:
        _write_env(paths, env)
        _write_stamp(paths, key, done)
    return True


def _read_stamp(paths: Paths) -> dict[str, Any]:
    try:
        stamp = json.loads(paths.build_stamp.read_text(encoding="utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_stamp(paths: Paths, key: str, done: dict[str, str]) -> None:
    paths.build_stamp.write_text(json.dumps({"key": key, "packages": done}, indent=1) + "\n")


def _write_env(paths: Paths, env: dict[str, str]) -> None:
    """Ask colcon's own set-up script once and keep its answer: sourcing it each time is slow."""
    kept = (*LIST_VARIABLES, "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    baseline: dict[str, str] = {name: env[name] for name in kept if name in env}
    script = f". {shlex.quote(str(paths.install / 'local_setup.bash'))} >&2 && env -0"
    probe = subprocess.run(["bash", "-c", script], env=baseline, capture_output=True, text=True)
    if probe.returncode:
        raise SetupError(f"install/local_setup.bash cannot be sourced: {probe.stderr.strip()}")
    answer = dict(item.split("=", 1) for item in probe.stdout.split("\0") if "=" in item)
    own_path = [p for p in answer.pop("PATH").split(os.pathsep) if _ours(p, paths, env)]
    own_path = list(dict.fromkeys(own_path))  # the set-up may itself run inside the environment

    lines = ["# Made by setup/bootstrap.py from colcon's set-up scripts; read by ./rl100."]
    lines.append(f"RL100_BUILT_AT={shlex.quote(str(paths.root))}")
    lines.append(
        '_rl100_first() { eval "_rl100_old=\\${$1-}"; case ":$_rl100_old:" in *":$2:"*) ;; '
        '*) export "$1=$2${_rl100_old:+:$_rl100_old}" ;; esac; }'
    )
    values = {**answer, "PATH": os.pathsep.join(own_path)}
    for name in LIST_VARIABLES:
        if values.get(name):
            lines.append(f"_rl100_first {name} {shlex.quote(values[name])}")
    single = {"VIRTUAL_ENV": str(paths.venv)}
    for name in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "ROS_DISTRO", "ROS_VERSION",
                 "ROS_PYTHON_VERSION"):  # fmt: skip
        if name in env:
            single[name] = env[name]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in single.items()]
    partial = paths.env_file.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(paths.env_file)


def _ours(folder: str, paths: Paths, env: dict[str, str]) -> bool:
    prefixes = [str(paths.root), *env.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    return any(folder == p or folder.startswith(p + os.sep) for p in prefixes if p)
