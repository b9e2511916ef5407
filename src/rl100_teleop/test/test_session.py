"""Pins what the recorder decides: when an episode may start, what belongs to it, what ends it and
what is kept – in real time and in lockstep, through resets and restarts of the simulated world.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rl100_contracts.episode import (
    EpisodeReader,
    Outcome,
    list_episodes,
    load_episode_info,
    unfinished_episodes,
)
from rl100_contracts.errors import ContractError
from rl100_contracts.task import NANOSECONDS
from rl100_teleop.recorder.session import RecordingSession, Settings, Verdict
from rl100_teleop.testing import (
    DISCARD,
    FAILURE,
    OBSERVED,
    PERIOD,
    REWARD,
    SIM_START,
    STOP,
    SUCCESS,
    Bench,
    chain,
    executed,
    header,
)


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
