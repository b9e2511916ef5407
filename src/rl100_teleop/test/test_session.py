"""Pins what the recorder decides: when an episode may start, what belongs to it, what ends it and
what is kept – in real time and in lockstep, through resets and restarts of the simulated world.
"""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.decode import peek_stamp_ns
from rl100_contracts.episode import (
    EpisodeReader,
    Outcome,
    list_episodes,
    load_episode_info,
    unfinished_episodes,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.task import NANOSECONDS, Task, load_task
from rl100_teleop.recorder.session import (
    EXECUTED_TYPE,
    REWARD_TYPE,
    Ended,
    RecordingSession,
    Settings,
    Verdict,
)
from rl100_teleop.recorder.stamps import Place, WorldClock
from rl100_teleop.recorder.tally import CHAIN_TYPE

# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PERIOD = NANOSECONDS // 20
SIM_START = 100 * NANOSECONDS
OBSERVED = ("joint_states", "tool_pose", "points", "depth", "camera_info")
SUCCESS, FAILURE, DISCARD, STOP, REWARD = range(5)


def header(stamp_ns: int) -> bytes:
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return b"\x00\x01\x00\x00" + struct.pack("<iI", sec, nanosec)


def _header_object(stamp_ns: int) -> object:
    types = ensure_type(REWARD_TYPE).types
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    time = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return types["std_msgs/msg/Header"](stamp=time, frame_id="")


def reward(kind: int, stamp_ns: int, labeller: str = "keyboard") -> bytes:
    store = ensure_type(REWARD_TYPE)
    event = store.types[REWARD_TYPE](
        header=_header_object(stamp_ns), kind=kind, value=0.0, labeller=labeller
    )
    return bytes(store.serialize_cdr(event, REWARD_TYPE))


def chain(stamp_ns: int, sequence: int) -> bytes:
    store = ensure_type(CHAIN_TYPE)
    message = store.types[CHAIN_TYPE](
        header=_header_object(stamp_ns), sequence=sequence, policy_version="v1",
        denoising_steps=1, horizon=1, action_dim=2, chain=np.zeros(4, np.float32),
        log_probs=np.zeros(1, np.float32), timesteps=np.zeros(1, np.uint32),
    )  # fmt: skip
    return bytes(store.serialize_cdr(message, CHAIN_TYPE))


def executed(
    stamp_ns: int, source: str = "policy", version: str = "v1", sequence: int = 1
) -> bytes:
    store = ensure_type(EXECUTED_TYPE)
    message = store.types[EXECUTED_TYPE](
        header=_header_object(stamp_ns), mode=2, source=source, policy_version=version,
        chunk_sequence=sequence, chunk_index=0, hold=False, limited=False,
        raw_action=np.zeros(2, np.float32), action=np.zeros(2, np.float32),
        target=np.zeros(2), feedback=np.zeros(2), reason="",
        planned_target=np.zeros(2), sent=True, shadow_version="", shadow_sequence=0,
        shadow_index=0, shadow_raw_action=np.zeros(0, np.float32),
        shadow_action=np.zeros(0, np.float32), shadow_target=np.zeros(0), shadow_deviation=0.0,
    )  # fmt: skip
    return bytes(store.serialize_cdr(message, EXECUTED_TYPE))


class Bench:
    """A session with a clock that the test moves."""

    def __init__(self, data: Path, *, lockstep: bool = True, task: Task | None = None) -> None:
        self.now = 0.0
        self.data = data
        self.task = task or load_task("push")
        settings = Settings(lockstep=lockstep, min_free_mb=0.0)
        self.session = RecordingSession(self.task, data, settings, clock=lambda: self.now)

    def observe(self, stamp_ns: int) -> None:
        for name in OBSERVED:
            self.session.receive(name, header(stamp_ns))

    def tick(self, stamp_ns: int, **action: str) -> None:
        self.observe(stamp_ns)
        self.session.receive("executed_action", executed(stamp_ns, **action))

    def ticks(self, first: int, count: int, start_ns: int = SIM_START, **action: str) -> None:
        for index in range(first, first + count):
            self.tick(start_ns + index * PERIOD, **action)

    def label(self, kind: int, stamp_ns: int) -> None:
        self.session.receive("reward", reward(kind, stamp_ns))

    def close(self) -> Ended:
        closing = self.session.poll()
        assert closing is not None
        return closing.save()

    def stamps(self, name: str, stream: str = "points") -> list[int]:
        topic = self.task.streams[stream].topic
        with EpisodeReader(self.data / name, self.task) as reader:
            return [peek_stamp_ns(data) for _, _, _, data in reader.raw([topic])]


def test_lockstep_episode_ends_when_its_last_tick_is_in(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("one", "a note", 5)
    bench.ticks(0, 20)
    last = SIM_START + 20 * PERIOD
    # The verdict overtakes the data of its tick.
    bench.label(SUCCESS, last)
    assert bench.session.ending
    for name in OBSERVED:
        assert bench.session.poll() is None
        bench.session.receive(name, header(last))
    # No action follows the last observation: nothing waits for one.
    ended = bench.close()
    assert (ended.saved, ended.outcome, ended.labeller) == (True, Outcome.SUCCESS, "keyboard")
    assert (ended.stamp_ns, ended.message) == (last, "")
    assert ended.path == str(tmp_path / "one")
    info = load_episode_info(tmp_path / "one")
    assert (info.steps, info.source, info.policy_version) == (20, "policy", "v1")
    assert (info.note, info.seed, info.label_ns, info.complete) == ("a note", 5, last, True)
    assert bench.stamps("one") == [SIM_START + i * PERIOD for i in range(21)]
    with EpisodeReader(tmp_path / "one", bench.task) as reader:
        (label,) = [message for name, message in reader.messages(["reward"])]
    assert label.kind == SUCCESS and label.labeller == "keyboard"


def test_verdict_that_overtakes_many_ticks_cuts_none_off(tmp_path: Path) -> None:
    """Seen on a busy machine: the verdict's queue was empty, those of the images were not."""
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 10)
    last = SIM_START + 40 * PERIOD
    bench.label(SUCCESS, last)
    for index in range(10, 40):
        assert bench.session.poll() is None
        bench.now += 0.4  # slow, but it goes on
        bench.tick(SIM_START + index * PERIOD)
    bench.observe(last)
    ended = bench.close()
    assert (ended.stamp_ns, ended.message) == (last, "")
    info = load_episode_info(tmp_path / "e")
    assert (info.steps, info.label_ns) == (40, last)


def test_a_chain_that_comes_after_its_actions_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("chains")
    last = SIM_START + 3 * PERIOD
    for tick in range(3):
        stamp = SIM_START + tick * PERIOD
        bench.observe(stamp)
        bench.session.receive("executed_action", executed(stamp, sequence=tick))
        if tick < 2:
            bench.session.receive("policy_step", chain(stamp, tick))
    bench.observe(last)
    bench.label(SUCCESS, last)
    assert bench.session.poll() is None
    bench.session.receive("policy_step", chain(SIM_START + 2 * PERIOD, 2))
    assert bench.close().saved
    assert len(bench.stamps("chains", "policy_step")) == 3


def test_a_chain_that_never_comes_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("lost")
    bench.session.receive("policy_step", chain(SIM_START, 7))
    bench.ticks(0, 3)
    bench.observe(SIM_START + 3 * PERIOD)
    bench.label(SUCCESS, SIM_START + 3 * PERIOD)
    assert bench.session.poll() is None
    bench.now = 0.6
    assert bench.close().saved


def test_missing_last_data_ends_after_the_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("late")
    bench.ticks(0, 20)
    bench.label(FAILURE, SIM_START + 20 * PERIOD)
    bench.now = 0.4
    assert bench.session.poll() is None
    bench.now = 0.6
    ended = bench.close()
    assert ended.saved and ended.outcome is Outcome.FAILURE


@pytest.mark.parametrize(
    ("kind", "outcome", "labeller"),
    [
        (SUCCESS, Outcome.SUCCESS, "keyboard"),
        (FAILURE, Outcome.FAILURE, "keyboard"),
        (STOP, Outcome.UNKNOWN, "keyboard (stop)"),
    ],
)
def test_verdicts(tmp_path: Path, kind: int, outcome: Outcome, labeller: str) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 10)
    bench.label(kind, SIM_START + 9 * PERIOD)
    ended = bench.close()
    assert (ended.saved, ended.outcome, ended.labeller) == (True, outcome, labeller)
    assert load_episode_info(tmp_path / "e").outcome is outcome


def test_discard_leaves_nothing_and_rewards_do_not_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 10)
    bench.label(REWARD, SIM_START + 5 * PERIOD)
    assert bench.session.poll() is None and not bench.session.ending
    bench.label(DISCARD, SIM_START + 30 * PERIOD)
    ended = bench.close()
    assert (ended.saved, ended.outcome, ended.path) == (False, Outcome.DISCARDED, "")
    assert list_episodes(tmp_path) == unfinished_episodes(tmp_path) == []


def test_first_verdict_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 10)
    bench.label(FAILURE, SIM_START + 9 * PERIOD)
    assert not bench.session.label(Verdict(Outcome.SUCCESS, "service"))
    assert bench.close().outcome is Outcome.FAILURE
    assert not bench.session.label(Verdict(Outcome.SUCCESS, "service"))


def test_messages_between_episodes_are_in_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ticks(0, 5)
    bench.session.start("a")
    bench.ticks(5, 10)
    bench.label(SUCCESS, SIM_START + 14 * PERIOD)
    bench.close()
    bench.ticks(15, 5)
    bench.session.start("b")
    bench.ticks(20, 10)
    bench.label(SUCCESS, SIM_START + 29 * PERIOD)
    bench.close()
    assert bench.stamps("a") == [SIM_START + i * PERIOD for i in range(5, 15)]
    assert bench.stamps("b") == [SIM_START + i * PERIOD for i in range(20, 30)]


def test_stragglers_of_the_world_before_a_reset_are_left_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ticks(0, 30)
    bench.session.start("e")
    # The old world's last action arrives only now; then the reset jumps the clock forward.
    bench.session.receive("executed_action", executed(SIM_START + 29 * PERIOD))
    start = SIM_START + 30 * PERIOD + NANOSECONDS
    bench.session.receive("joint_states", header(start))
    bench.session.receive("executed_action", executed(SIM_START + 30 * PERIOD))
    for name in OBSERVED[1:]:
        bench.session.receive(name, header(start))
    bench.session.receive("executed_action", executed(start))
    bench.ticks(1, 9, start)
    bench.label(SUCCESS, start + 9 * PERIOD)
    assert bench.close().message == ""
    assert bench.stamps("e") == [start + i * PERIOD for i in range(10)]
    assert bench.stamps("e", "executed_action") == [start + i * PERIOD for i in range(10)]


def test_reset_under_a_running_episode_begins_it_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e", "note", 3)
    bench.ticks(0, 8)
    start = SIM_START + 8 * PERIOD + NANOSECONDS
    bench.ticks(0, 10, start)
    bench.label(SUCCESS, start + 9 * PERIOD)
    assert bench.close().message == ""
    assert bench.stamps("e") == [start + i * PERIOD for i in range(10)]
    info = load_episode_info(tmp_path / "e")
    assert (info.steps, info.note, info.seed) == (10, "note", 3)


def test_restarted_simulator_whose_clock_went_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ticks(0, 30)
    bench.session.start("e")
    bench.ticks(1, 10, 0)
    bench.label(SUCCESS, 10 * PERIOD)
    assert bench.close().message == ""
    assert bench.stamps("e") == [i * PERIOD for i in range(1, 11)]


def test_next_world_closes_a_labelled_episode_and_stays_out_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 10)
    bench.label(SUCCESS, SIM_START + 10 * PERIOD)
    assert bench.session.poll() is None
    bench.tick(SIM_START + 10 * PERIOD + NANOSECONDS)
    assert bench.close().saved
    assert bench.stamps("e")[-1] == SIM_START + 9 * PERIOD


def test_labels_of_an_earlier_world_are_stale_and_wall_time_means_now(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ticks(0, 10)
    bench.session.start("e")
    start = SIM_START + 10 * PERIOD + NANOSECONDS
    bench.ticks(0, 10, start)
    bench.label(SUCCESS, SIM_START + 9 * PERIOD)
    assert not bench.session.ending
    bench.label(FAILURE, 1_800_000_000 * NANOSECONDS)
    ended = bench.close()
    assert (ended.outcome, ended.stamp_ns) == (Outcome.FAILURE, start + 9 * PERIOD)


def test_length_and_silence_end_an_unlabelled_episode(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lockstep")
    bench.session.start("long")
    bench.ticks(0, 151)
    assert bench.session.poll() is None
    bench.ticks(151, 2)
    ended = bench.close()
    assert (ended.outcome, ended.labeller) == (Outcome.UNKNOWN, "timeout")

    bench = Bench(tmp_path / "silent")
    bench.session.start("silent")
    bench.ticks(0, 10)
    bench.now = 59.0
    assert bench.session.poll() is None
    bench.now = 61.0
    assert bench.close().labeller == "no messages"

    bench = Bench(tmp_path / "real", lockstep=False)
    bench.session.start("real")
    bench.now = 59.4
    assert bench.session.poll() is None
    bench.now = 60.6
    assert bench.session.poll() is None  # labelled, and waits for its data
    bench.now = 61.2
    assert bench.close().labeller == "timeout"


def test_interrupted_episode_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.session.interrupt() is None
    bench.session.start("e")
    bench.ticks(0, 10)
    closing = bench.session.interrupt()
    assert closing is not None
    ended = closing.save()
    assert (ended.saved, ended.outcome, ended.labeller) == (True, Outcome.UNKNOWN, "interrupted")
    bench.session.start("f")
    bench.ticks(10, 10)
    bench.label(SUCCESS, SIM_START + 25 * PERIOD)
    closing = bench.session.interrupt()
    assert closing is not None and closing.save().outcome is Outcome.SUCCESS


def test_incomplete_episode_is_saved_and_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    for index in range(20):
        for name in OBSERVED[1:]:
            bench.session.receive(name, header(SIM_START + index * PERIOD))
        bench.session.receive("executed_action", executed(SIM_START + index * PERIOD))
    bench.label(SUCCESS, SIM_START + 19 * PERIOD)
    bench.now = 1.0
    ended = bench.close()
    assert ended.saved and ended.message == "incomplete: no message on /joint_states"
    assert not load_episode_info(tmp_path / "e").complete


def test_who_acted_most(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.session.start("e")
    bench.ticks(0, 6, source="keyboard", version="")
    bench.ticks(6, 4, source="policy", version="v2")
    bench.label(SUCCESS, SIM_START + 9 * PERIOD)
    bench.close()
    info = load_episode_info(tmp_path / "e")
    assert (info.source, info.policy_version) == ("keyboard", "v2")


def test_gate_names_the_missing_topic(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lockstep=False)
    session, counts = bench.session, {name: (1, 1) for name in bench.task.streams}
    assert "/joint_states yet" in session.missing(counts.__getitem__)
    bench.tick(SIM_START)
    bench.now = 0.4
    assert session.missing(counts.__getitem__) == ""
    bench.now = 0.6
    assert "no message on /joint_states for 0.6 s" in session.missing(counts.__getitem__)
    bench.tick(SIM_START)
    counts["points"] = (0, 0)
    assert "nothing publishes /rl100/points" in session.missing(counts.__getitem__)
    counts["points"] = (0, 1)
    assert "the publisher of /rl100/points doesn't fit" in session.missing(counts.__getitem__)
    # Optional topics may be absent; in lockstep a matched publisher is enough.
    lockstep = Bench(tmp_path).session
    present = {name: (int(s.required),) * 2 for name, s in bench.task.streams.items()}
    assert lockstep.missing(lambda name: (present[name][0], present[name][1])) == ""


def test_start_refusals(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.session.start()
    assert first.startswith("push_") and first.endswith("_001")
    with pytest.raises(ContractError, match=f"episode {first} is running: end it first"):
        bench.session.start()
    bench.session.label(Verdict(Outcome.DISCARDED, "test"))
    bench.close()
    assert bench.session.start().endswith("_002")
    bench.session.label(Verdict(Outcome.DISCARDED, "test"))
    bench.close()
    with pytest.raises(ContractError, match="cannot name an episode"):
        bench.session.start("../up")
    assert bench.session.running == ""
    full = RecordingSession(bench.task, tmp_path / "new", Settings(min_free_mb=1e12))
    with pytest.raises(ContractError, match="make room"):
        full.start()


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
