"""An install prefix full of fake nodes: small scripts that note how they were started.

A fake node writes ``<out>/<name>.json`` (its arguments, environment and process id) and then
does what the variable ``FAKE_<name>`` says: wait for Ctrl-C (default), ``exit:N``, ``deaf`` (ignore
SIGINT and SIGTERM), ``parent`` (start a child that outlives SIGINT) or ``plain`` (a program that
doesn't know that Ctrl-C is held back at its start).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

SCRIPT = """#!{python}
import json, os, signal, subprocess, sys, time
words = sys.argv[1:]
name = next(w for w in words if w.startswith("__node:=")).split(":=")[1]
does = os.environ.get("FAKE_" + name, "")
# The file tells the test that the node is ready for signals.
signal.signal(signal.SIGINT, signal.SIG_IGN if does == "deaf" else signal.default_int_handler)
if does == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if does != "plain":
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # as run_node does it
child = None
if does == "parent":
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(120)"
    child = subprocess.Popen([sys.executable, "-c", code]).pid
params = [words[i + 1] for i, w in enumerate(words) if w == "--params-file"]
path = os.path.join(os.environ["FAKE_OUT"], name)
starts = 1
if os.path.exists(path + ".json"):
    starts += json.load(open(path + ".json"))["starts"]
text = json.dumps(dict(words=words, env=dict(os.environ), pid=os.getpid(), child=child,
                       starts=starts, files=[open(p).read() for p in params]))
print("hello from", name, flush=True)
with open(path + ".new", "w") as file:
    file.write(text)
os.rename(path + ".new", path + ".json")
try:
    if does.startswith("exit:"):
        print("the last words of", name, flush=True)
        sys.exit(int(does[5:]))
    time.sleep(120)
except KeyboardInterrupt:
    print("goodbye", flush=True)
"""

EXECUTABLES = {
    "rl100_sim": ("sim", "scripted_teleop", "scripted_labeller"),
    "rl100_perception": ("perception",),
    "rl100_policy_node": ("policy",),
    "rl100_control": ("gateway",),
    "rl100_teleop": ("recorder", "teleop_keyboard", "teleop_joy"),
    "rl100_reward_keyboard": ("reward_keyboard",),
    "rl100_trainer": ("trainer_node",),
    "rviz2": ("rviz2",),
}


def make_prefix(folder: Path) -> Path:
    """Write an install prefix with every executable of the systems."""
    index = folder / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    for package, names in EXECUTABLES.items():
        (index / package).touch()
        (folder / "lib" / package).mkdir(parents=True)
        for name in names:
            path = folder / "lib" / package / name
            path.write_text(SCRIPT.replace("{python}", sys.executable))
            path.chmod(0o755)
    return folder


def fake_environment(tmp_path: Path, **does: str) -> dict[str, str]:
    """Environment in which the systems start fake nodes; ``does``: node name -> behaviour."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    prefix = tmp_path / "prefix"
    if not prefix.exists():
        make_prefix(prefix)
    return {
        **os.environ,
        "AMENT_PREFIX_PATH": str(prefix),
        "FAKE_OUT": str(out),
        "ROS_LOG_DIR": str(tmp_path / "log"),
        **{f"FAKE_{name}": what for name, what in does.items()},
    }


def read_nodes(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What the fake nodes that were started have noted, by name."""
    files = (tmp_path / "out").glob("*.json")
    return {file.stem: json.loads(file.read_text()) for file in files}


def wait_nodes(tmp_path: Path, names: Iterable[str], timeout_s: float = 60.0) -> dict[str, Any]:
    """Wait until all the named nodes have started."""
    wanted = set(names)
    end = time.monotonic() + timeout_s
    while not wanted <= set(read_nodes(tmp_path)):
        assert time.monotonic() < end, f"only {set(read_nodes(tmp_path))} of {wanted} started"
        time.sleep(0.05)
    return read_nodes(tmp_path)


def left_over(tmp_path: Path, timeout_s: float = 10.0) -> list[int]:
    """Process ids of fake nodes (or their children) that still run after ``timeout_s``."""
    pids = [n[key] for n in read_nodes(tmp_path).values() for key in ("pid", "child") if n[key]]
    end = time.monotonic() + timeout_s
    alive = pids
    while alive and time.monotonic() < end:
        alive = [pid for pid in pids if _alive(pid)]
        time.sleep(0.05)
    return alive


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
