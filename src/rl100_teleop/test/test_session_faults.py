"""Pins that a session loses at most its episode: when a recorder died, when the disc is full, when
streams of two simulated worlds overlap, and whatever bytes come.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.episode import list_episodes, unfinished_episodes
from rl100_teleop.recorder.stamps import Place, WorldClock
from rl100_teleop.testing import OBSERVED, PERIOD, SIM_START, SUCCESS, Bench

# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_names_of_crashed_episodes_are_not_used_again(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        # Three recorders that died within one second of each other.
        names.add(Bench(tmp_path).session.start())
    assert len(names) == 3 == len(unfinished_episodes(tmp_path))


FULL_DISC = """
import resource, signal, sys
from pathlib import Path
from rl100_contracts.task import load_task
from rl100_teleop.recorder.session import RecordingSession, Settings, Verdict
from rl100_contracts.episode import Outcome
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
session = RecordingSession(load_task("push"), Path(sys.argv[1]), Settings(lockstep=True))
session.start("lost")
for tick in range(8):
    session.receive("depth", bytes([0, 1, 0, 0, 100 + tick // 20]) + bytes(700_000))
    closing = session.poll()
    if closing:
        break
ended = closing.save()
print(ended.saved, ended.message)
session.start("next")
session.label(Verdict(Outcome.SUCCESS, "test"))
session.interrupt().save()
"""


def test_full_disc_loses_this_episode_only(tmp_path: Path) -> None:
    """A real refused write: a limit on the size of files stands in for the full disc."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    kept = Bench(tmp_path)
    kept.session.start("kept")
    kept.ticks(0, 10)
    kept.label(SUCCESS, SIM_START + 9 * PERIOD)
    assert kept.close().saved
    before = (tmp_path / "kept" / "kept.mcap").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISC, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("False the episode is lost: ")
    assert "lost: cannot be written (File too large)" in done.stdout
    assert done.stderr == ""
    assert list_episodes(tmp_path) == [tmp_path / "kept", tmp_path / "next"]
    assert (tmp_path / "kept" / "kept.mcap").read_bytes() == before


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3), st.booleans())))
def test_world_clock_never_mixes_worlds(moves: list[tuple[str, int, bool]]) -> None:
    """Streams that each come in order, at their own pace, through forward resets: whatever is
    HERE or begins a world belongs to the newest world that any stream has shown."""
    clock = WorldClock(jump_ns=300)
    world = {"a": 0, "b": 0, "c": 0}
    step = {"a": 0, "b": 0, "c": 0}
    shown = 0
    for name in world:
        clock.see(name, 10)
    for stream, advance, reset in moves:
        if reset:
            # No stream lags by more than one world: the simulator waits for its commands.
            world[stream] = min(world[stream] + 1, min(world.values()) + 1)
            step[stream] = 0
        step[stream] = min(step[stream] + advance, 9)
        place = clock.see(stream, world[stream] * 1000 + 10 + step[stream] * 20)
        if place is Place.NEW_WORLD:
            assert world[stream] > shown
        if place is Place.HERE:
            assert world[stream] == shown
        shown = max(shown, world[stream])


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from([*OBSERVED, "executed_action", "reward"]), st.binary())))
def test_any_bytes_are_survived(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[str, bytes]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("bytes"))
    bench.session.start("e")
    for stream, data in messages:
        bench.session.receive(stream, data)
        bench.session.poll()
