"""A node's process: SIGINT and SIGTERM end it with 0 and no traceback, a user's mistake with 2 and
one sentence, and shut_down may still publish; a lifecycle node starts by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from rl100_node.testing import end_processes

pytestmark = pytest.mark.integration

NODE = textwrap.dedent(
    """
    from threading import Thread
    from std_msgs.msg import String
    from rl100_node.executors import call_soon
    from rl100_contracts.errors import ContractError
    from rl100_node.lifecycle import AutostartLifecycleNode
    from rl100_node.parameters import declare

    class Probe(AutostartLifecycleNode):
        def __init__(self):
            super().__init__("probe")
            self.number = declare(self, "number", 1.5, "a number", low=0.0, high=9.0)
            self.kind = declare(self, "kind", "a", "a choice", choices=("a", "b"))
            self.broken = declare(self, "broken", False, "fail in setup")
            self.fails = declare(self, "fails", False, "fail in a task")

        def setup(self):
            if self.broken:
                raise ContractError("this sentence says what to mend")
            self.out = self.advertise(String, "/probe", 1)
            self.every(0.05, self.tick)

        def start(self):
            print("started", self.number, flush=True)
            if self.fails:
                Thread(target=call_soon, args=(self, self.fail)).start()

        def fail(self):
            raise RuntimeError("a bug")

        def tick(self):
            if self.active:
                self.out.publish(String(data="x"))

        def halt(self):
            self.out.publish(String(data="bye"))
            print("halted", flush=True)
    """
)


@pytest.fixture
def start(tmp_path: Path):
    """Start the probe node as a process."""
    (tmp_path / "probe_node.py").write_text(NODE)
    running: list[subprocess.Popen[str]] = []

    def _start(*parameters: str) -> subprocess.Popen[str]:
        ros = [word for parameter in parameters for word in ("-p", parameter)]
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from rl100_node import run_node; run_node('probe_node:Probe')",
                *(["--ros-args", *ros] if ros else []),
            ],
            env={
                **os.environ,
                "PYTHONPATH": path,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield _start
    end_processes(running)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_spinning_node_cleanly(start, number: signal.Signals) -> None:
    process = start()
    assert process.stdout.readline() == "started 1.5\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "halted\n"
    assert "Traceback" not in err


def test_an_exception_from_another_thread_halts_the_node_and_is_told(start) -> None:
    """The events executor itself would end in a segmentation fault."""
    process = start("fails:=true")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == "started 1.5\nhalted\n" and "RuntimeError: a bug" in err


def test_ctrl_c_that_was_held_back_while_python_started_ends_the_node() -> None:
    def interrupted() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as `rl100 up` does it
        os.kill(os.getpid(), signal.SIGINT)

    code = "from rl100_node import run_node; run_node('never_imported:Node')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=interrupted,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_whole_number_is_a_good_value_of_a_float(start) -> None:
    process = start("number:=5")
    assert process.stdout.readline() == "started 5.0\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_without_autostart_the_node_waits(start) -> None:
    process = start("autostart:=false")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "" and "Traceback" not in err


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ("broken:=true", "this sentence says what to mend"),
        ("number:=text", "parameter number of probe must be a number"),
        ("number:=12.0", "parameter number of probe must be a number from 0.0 to 9.0"),
        ("number:=12", "parameter number of probe is 12.0: it must be a number from 0.0 to 9.0"),
        ("kind:=c", "parameter kind of probe is 'c': choose one of a, b"),
        ("broken", "the ROS arguments cannot be used"),
    ],
)
def test_a_mistake_gives_one_sentence_and_status_2(start, parameter: str, sentence: str) -> None:
    process = start(parameter)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"error: {sentence}" in err
    assert "Traceback" not in err and out == ""
