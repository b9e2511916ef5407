"""The virtual environment: the locked packages, and the torch build that fits the machine."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from . import ros
from .common import Finished, Paths, Reporter, SetupError, run_logged

TORCH = "2.13.0"
NETWORK_MARKS = (
    "Retrying (Retry", "Max retries exceeded", "NewConnectionError", "NameResolutionError",
    "ConnectTimeout", "ReadTimeout", "Read timed out", "Connection refused", "ProxyError",
    "SSLError", "Temporary failure in name resolution", "Could not fetch URL",
    "Connection aborted", "Connection broken", "HTTP error 5", "incomplete-download",
)  # fmt: skip
ABSENT_MARKS = (
    "No matching distribution found",
    "Could not find a version",
    "ResolutionImpossible",  # said of an absent wheel when pip's configuration constrains torch
)


def base_python() -> str:
    """The interpreter that makes the environment, never one inside an environment."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(getattr(sys, "_base_executable", sys.executable))


def check_tools() -> None:
    """A C++ compiler and Python's headers: the interfaces are compiled."""
    if not (os.environ.get("CXX") or any(map(shutil.which, ("c++", "g++", "clang++")))):
        raise SetupError("no C++ compiler found; install one (Debian, Ubuntu: build-essential)")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise SetupError(
            f"{header} is missing; install the headers of this Python (Debian, Ubuntu: "
            "python3-dev), or name another interpreter with PYTHON=/path/to/python3"
        )


def make_venv(paths: Paths, system_site: bool, env: dict[str, str], reporter: Reporter) -> None:
    """Make `.venv` anew. Works without ensurepip where the interpreter has a pip of its own."""
    if paths.venv.is_symlink():
        raise SetupError(
            f"{paths.venv} is a link, and set-up makes a folder there; remove the link"
        )
    if paths.venv.exists():
        shutil.rmtree(paths.venv)
    paths.venv.mkdir()
    paths.unfinished.touch()
    command = [base_python(), "-m", "venv", "--prompt", "rl100"]
    if system_site:
        command.append("--system-site-packages")
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not has_ensurepip:
        if importlib.util.find_spec("pip") is None:
            raise SetupError(
                "this Python can make no virtual environment with pip; install python3-venv "
                "(Debian, Ubuntu) or name another interpreter with PYTHON=/path/to/python3"
            )
        command.append("--without-pip")
    _checked(run_logged([*command, str(paths.venv)], env, paths, reporter), "making .venv")
    if not has_ensurepip:
        into = [base_python(), "-m", "pip", "--python", str(paths.python), "install", "pip"]
        _checked(run_logged(into, env, paths, reporter), "installing pip into .venv")


def requirement_blocks(text: str, with_ros: bool) -> list[str]:
    """The lock's entries (with their hash lines); without the `ros-` ones where ROS is sourced."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    return [b.strip() for b in blocks if with_ros or not b.startswith("ros-")]


def install_locked(
    paths: Paths, with_ros: bool, env: dict[str, str], reporter: Reporter
) -> list[str]:
    """Install the lock file by hash and return the names in it."""
    blocks = requirement_blocks(paths.lock_file.read_text(encoding="utf-8"), with_ros)
    requirements = paths.venv / "rl100_requirements.txt"
    # setuptools first and no build isolation: one package (empy) comes as source only, and its
    # build must not fetch an unlocked tool.
    setuptools = [b for b in blocks if b.startswith("setuptools==")]
    for chosen in (setuptools, blocks):
        requirements.write_text("\n".join(chosen) + "\n", encoding="utf-8")
        options = ["--require-hashes", "--no-deps", "--no-build-isolation"]
        command = [*_pip(paths), *options, "-r", str(requirements)]
        done = run_logged(command, env, paths, reporter)
        _checked(done, "installing the locked packages")
    return sorted({re.split(r"[=\s;]", b, maxsplit=1)[0] for b in blocks})


def remove_packages(paths: Paths, names: list[str], env: dict[str, str], rep: Reporter) -> None:
    """Uninstall packages that a newer lock file no longer names."""
    command = [str(paths.python), "-m", "pip", "uninstall", "--yes", *names]
    _checked(run_logged(command, env, paths, rep), "removing packages no longer locked")


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver has a GPU."""
    if not shutil.which("nvidia-smi"):
        return any(Path("/proc/driver/nvidia/gpus").glob("*"))
    probe = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return probe.returncode == 0 and "GPU " in probe.stdout


def wanted_torch() -> str:
    """`none`, `cuda` or `cpu`."""
    if os.environ.get("RL100_SKIP_TORCH") == "1":
        return "none"
    return "cuda" if has_nvidia_gpu() else "cpu"


def install_torch(paths: Paths, wanted: str, env: dict[str, str], reporter: Reporter) -> str:
    """Install torch; returns the version that `import torch` will report, or `none`."""
    if wanted == "none":
        return "none"
    if wanted == "cpu":
        command = [*_pip(paths), "--no-deps", f"torch=={TORCH}+cpu"]
        done = run_logged(command, env, paths, reporter)
        if done.code == 0:
            return _installed_torch(paths, env)
        # Only a clear "no such wheel" leads to the bigger build; a network error must not.
        if any(mark in done.output for mark in NETWORK_MARKS) or not any(
            mark in done.output for mark in ABSENT_MARKS
        ):
            _checked(done, "installing torch")
        if platform.machine() in ("x86_64", "AMD64") and platform.system() == "Linux":
            reporter.end("no CPU wheel where pip looks")
            reporter.say(
                "taking the CUDA build of torch instead (several GB); for the small CPU build, "
                "point PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS at PyTorch's CPU wheels"
            )
            reporter.begin(f"installing torch {TORCH} (CUDA build)")
    # Constraints keep torch's dependencies at the locked versions.
    constraints = paths.venv / "rl100_constraints.txt"
    text = paths.lock_file.read_text(encoding="utf-8")
    pins = [b.split("\\")[0].strip() for b in requirement_blocks(text, with_ros=False)]
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    command = [*_pip(paths), "-c", str(constraints), f"torch=={TORCH}"]
    _checked(run_logged(command, env, paths, reporter), "installing torch")
    return _installed_torch(paths, env)


def environment(paths: Paths, which: ros.Ros, extra_libraries: bool = True) -> dict[str, str]:
    """Environment of the set-up's own commands: this .venv, the chosen ROS and no other."""
    env = {k: v for k, v in os.environ.items() if k not in (*ros.ROS_VARIABLES, "PYTHONHOME")}
    env.update({k: v for k, v in which.variables.items() if k != "PATH"})
    path = [str(paths.venv / "bin"), which.variables.get("PATH", ""), os.environ.get("PATH", "")]
    env["PATH"] = os.pathsep.join(p for p in path if p)
    env["VIRTUAL_ENV"] = str(paths.venv)
    env.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    env["PIP_NO_INPUT"] = "1"
    if not which.sourced and extra_libraries:
        libraries = ":".join(map(str, ros.library_folders(paths)))
        if libraries:
            env["LD_LIBRARY_PATH"] = libraries
            # The wheels restart Python to set this variable unless they are told it's done.
            env["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(paths.venv)
    return env


def include_folders(paths: Paths, env: dict[str, str]) -> tuple[str, str]:
    """Header folders of the environment's Python and NumPy."""
    code = (
        "import json, numpy, sysconfig; "
        "print(json.dumps([sysconfig.get_path('include'), numpy.get_include()]))"
    )
    python, numpy = json.loads(_ask(paths, code, env))
    return python, numpy


def check_rclpy(paths: Paths, env: dict[str, str]) -> None:
    """Import rclpy with its middleware, so that a broken environment shows here."""
    _ask(paths, "import rclpy; rclpy.init(); rclpy.shutdown()", env)


def _installed_torch(paths: Paths, env: dict[str, str]) -> str:
    return _ask(paths, "import torch; print(torch.__version__)", env).strip()


def _ask(paths: Paths, code: str, env: dict[str, str]) -> str:
    probe = subprocess.run(
        [str(paths.python), "-c", code], capture_output=True, text=True, env=env, cwd=paths.venv
    )
    if probe.returncode:
        with paths.log.open("a", encoding="utf-8") as log:
            log.write(f"$ python -c {code!r}\n{probe.stdout}{probe.stderr}\n")
        raise SetupError("the installed packages cannot be imported")
    return probe.stdout


def _pip(paths: Paths) -> list[str]:
    return [str(paths.python), "-m", "pip", "install", "--progress-bar", "off"]


def _checked(done: Finished, doing: str) -> None:
    if done.code == 0:
        return
    raise SetupError(next(_reasons(done.output, doing)))


def _reasons(output: str, doing: str) -> Iterator[str]:
    if any(mark in output for mark in NETWORK_MARKS):
        yield f"{doing} failed: pip could not reach its package source; check the network and retry"
    if "DO NOT MATCH THE HASHES" in output:
        yield f"{doing} failed: a downloaded file differs from the locked one; check pip's source"
    if "No space left on device" in output:
        yield f"{doing} failed: the disk is full"
    yield f"{doing} failed"
