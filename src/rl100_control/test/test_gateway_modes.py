"""Who moves the robot.

Pins: the policy moves nothing before it is armed, at the start and after each stop; a person takes
over by moving, and the policy comes back when asked; in shadow nothing of the policy is sent and
its deviation is told; a dead-man switch that is released or silent holds or stops; after a pause
the target is where the robot is; a last hold ends motion; plans do not pile up; the report counts
it all.
"""

from __future__ import annotations

import numpy as np
import pytest

from rl100_contracts.task import NANOSECONDS
from rl100_control.deadman import Deadman
from rl100_control.gateway import Gateway
from rl100_control.report import RunReport
from rl100_control.testing import (
    DT,
    HERE,
    T0,
    TASK,
    changed,
    chunk,
    follow,
    gateway,
    give,
)
from rl100_control.tick import Mode, Tick

STEP = [0.01, 0.0]


def drive(made: Gateway, start: int, ticks: int, *, teleop: bool = False) -> list[Tick]:
    """Ticks with a new chunk of one step for each."""
    done = []
    for i in range(ticks):
        now = T0 + (start + i) * DT
        give(made, chunk(100 + start + i, now, [STEP]), now, teleop=teleop)
        done.append(follow(made, now))
    return done


# --- arming


def test_the_policy_is_armed_before_its_first_motion_and_after_each_stop() -> None:
    made = gateway(lockstep=False, arming=True)
    for tick in drive(made, 0, 2):
        assert tick.hold and "rl100 arm" in tick.reason
        np.testing.assert_array_equal(tick.target, HERE)
    assert made.arm() == ""
    assert not any(tick.hold for tick in drive(made, 2, 2))
    made.stop("'keyboard' pressed stop")
    assert not made.armed
    assert "clear the stop" in made.arm()
    assert made.set_mode(Mode.POLICY, clear_stop=True) == ""
    assert all(tick.hold for tick in drive(made, 4, 2))
    assert made.arm() == ""
    assert not any(tick.hold for tick in drive(made, 6, 2))


def test_arming_needs_a_robot_and_forgets_older_plans() -> None:
    made = Gateway(changed(), Mode.POLICY, arming=True)
    assert "position is not known" in made.arm()
    made = gateway(lockstep=False, arming=True)
    give(made, chunk(1, T0, [STEP] * 8))
    assert made.arm() == ""
    assert follow(made, T0).hold, "a plan from before the arming moved the robot"


@pytest.mark.parametrize("mode", [Mode.TELEOP, Mode.TAKEOVER])
def test_a_person_needs_no_arming(mode: Mode) -> None:
    made = gateway(mode, lockstep=False, arming=True)
    assert not any(tick.hold for tick in drive(made, 0, 2, teleop=True))


def test_lockstep_needs_no_arming() -> None:
    made = gateway(lockstep=True, arming=True)
    assert not drive(made, 0, 1)[0].hold


# --- take-over


def test_a_person_takes_over_by_moving_and_the_policy_comes_back_when_asked() -> None:
    made = gateway(lockstep=False)
    give(made, chunk(1, T0, [STEP] * 20))
    follow(made, T0)
    ticks = drive(made, 1, 3, teleop=True)
    assert [tick.mode for tick in ticks] == [Mode.TAKEOVER] * 3
    assert not any(tick.hold for tick in ticks)
    give(made, chunk(2, T0 + 4 * DT, [STEP] * 20), T0 + 4 * DT)
    silent = [follow(made, T0 + (4 + i) * DT) for i in range(10)]
    assert all(t.mode is Mode.TAKEOVER and t.hold for t in silent), "the policy came back by itself"
    assert made.set_mode(Mode.POLICY) == ""
    assert follow(made, T0 + 14 * DT).hold, "a plan from before the take-over went on"
    assert not drive(made, 15, 1)[0].hold


def test_a_take_over_ends_by_itself_only_where_that_was_asked_for() -> None:
    steady = [0]

    def tick(index: int) -> Mode:
        steady[0] = index * DT
        return follow(made, T0 + index * DT).mode

    made = gateway(lockstep=False, release_s=0.2, steady_ns=lambda: steady[0])
    drive(made, 0, 1, teleop=True)
    modes = [tick(i) for i in range(1, 7)]
    assert modes == [Mode.TAKEOVER] * 4 + [Mode.POLICY] * 2
    assert made.set_mode(Mode.TAKEOVER) == ""
    modes = [tick(i) for i in range(7, 17)]
    assert modes == [Mode.TAKEOVER] * 10, "it ended before the operator had moved"


def test_a_jump_of_the_clock_ends_no_take_over() -> None:
    made = gateway(lockstep=False, release_s=10.0, steady_ns=lambda: 0)
    drive(made, 0, 1, teleop=True)
    later = T0 + 3600 * NANOSECONDS
    assert made.on_feedback(later, HERE) == ""
    assert follow(made, later).mode is Mode.TAKEOVER


def test_after_a_pause_the_gateway_holds_where_the_robot_is() -> None:
    """Deactivated and activated again: somebody has moved it by hand meanwhile."""
    made = gateway(lockstep=False, arming=True)
    made.begin()
    assert made.arm() == ""
    assert not drive(made, 0, 2)[-1].hold
    there = HERE + 0.4 * TASK.limits.max_tracking_error
    made.begin()
    assert made.on_feedback(T0 + 3 * DT, there) == ""
    tick = made.tick(T0 + 3 * DT)
    assert tick is not None and tick.hold and "not armed" in tick.reason
    np.testing.assert_allclose(tick.target, there)


def test_the_last_hold_stands_still_and_is_for_a_robot_that_was_moved() -> None:
    made = gateway(lockstep=False)
    assert made.last_hold(T0, "the end") is None, "nothing was sent yet"
    moving = drive(made, 0, 3)[-1]
    assert moving.velocity.any()
    last = made.last_hold(T0 + 3 * DT, "the end")
    assert last is not None and last.hold and last.send and last.reason == "the end"
    assert not last.velocity.any()
    np.testing.assert_allclose(last.target, moving.target)
    assert made.set_mode(Mode.IDLE) == ""
    assert made.last_hold(T0 + 4 * DT, "the end") is None


def test_plans_do_not_pile_up_where_nobody_follows_them() -> None:
    made = gateway(Mode.IDLE, lockstep=False)
    for index in range(200):
        now = T0 + index * DT
        give(made, chunk(index, now, [STEP] * 4), now)
    assert len(made._plans[Mode.POLICY]._planned) < 40


def test_a_refused_plan_of_a_person_takes_nothing_over() -> None:
    made = gateway(Mode.POLICY, lockstep=False)
    assert "too late" in give(made, chunk(1, T0 - 10 * DT), teleop=True)
    assert made.mode is Mode.POLICY


def test_a_gateway_that_begins_stopped_says_so_and_holds() -> None:
    made = gateway(Mode.STOPPED, lockstep=False)
    tick = drive(made, 0, 1)[0]
    assert tick.hold and tick.reason == "the gateway began stopped"
    assert "stopped (the gateway began stopped)" in made.set_mode(Mode.POLICY)


def test_the_last_velocity_is_ended_also_when_the_robot_has_just_leapt() -> None:
    task = changed(action={"command_type": "geometry_msgs/msg/TwistStamped"})
    made = gateway(lockstep=False, task=task)
    assert drive(made, 0, 2)[-1].velocity.any()
    made.stop("test")
    assert made.set_mode(Mode.POLICY, clear_stop=True) == ""
    last = made.last_hold(T0 + 2 * DT, "idle")
    assert last is not None and last.send and not last.velocity.any()


@pytest.mark.parametrize("mode", [Mode.IDLE, Mode.STOPPED])
def test_moving_the_stick_leaves_neither_idle_nor_a_stop(mode: Mode) -> None:
    made = gateway(Mode.POLICY, lockstep=False)
    made.set_mode(mode)
    give(made, chunk(), teleop=True)
    assert made.mode is mode


# --- shadow


def test_in_shadow_nothing_of_the_policy_is_sent_and_its_deviation_is_told() -> None:
    made, report = gateway(Mode.SHADOW, lockstep=False), RunReport()
    give(made, chunk(1, T0, [STEP] * 4))
    deviations = []
    for i in range(5):
        tick = follow(made, T0 + i * DT)
        report.add(tick)
        assert tick.hold and tick.planned is None
        np.testing.assert_array_equal(tick.target, HERE)
        if tick.shadow:
            assert tick.shadow.planned.index == i
            deviations.append(tick.shadow.deviation)
    np.testing.assert_allclose(deviations, [0.01, 0.02, 0.03, 0.04], atol=1e-7)
    assert report.largest_deviation == pytest.approx(0.04)
    assert report.mean_deviation == pytest.approx(0.025)
    assert report.values(None)["shadow deviation, largest"] == pytest.approx(0.04)
    made.set_mode(Mode.POLICY)
    report.add(follow(made, T0 + 5 * DT))
    assert not [name for name in report.values(None) if "shadow" in name]


def test_in_shadow_a_person_drives_and_each_plan_starts_where_the_robot_is() -> None:
    made = gateway(Mode.SHADOW, lockstep=False)
    before = HERE
    for i in range(6):
        now = T0 + i * DT
        give(made, chunk(1 + i, now, [[0.0, 0.01]]), now, teleop=True)
        if i % 3 == 0:
            give(made, chunk(50 + i, now, [STEP] * 3), now)
        tick = follow(made, now)
        assert tick.planned is not None and tick.planned.chunk.sequence == 1 + i
        np.testing.assert_allclose(tick.target, [0.0, 0.01 * (i + 1)], atol=1e-7)
        assert tick.shadow is not None
        if i % 3 == 0:
            np.testing.assert_allclose(tick.shadow.target, before + STEP, atol=1e-7)
        before = tick.target
    assert made.mode is Mode.SHADOW


def test_shadow_keeps_the_limits() -> None:
    made = gateway(Mode.SHADOW, lockstep=False)
    give(made, chunk(1, T0, [[9.0, 9.0]]))
    shadow = follow(made, T0).shadow
    assert shadow is not None
    np.testing.assert_array_less(shadow.target, 0.0326)


# --- dead-man switch


def test_a_dead_man_switch_is_released_by_word_and_by_silence() -> None:
    now = [0.0]
    switch = Deadman(0.2, clock=lambda: now[0])
    assert "none was heard" in switch.problem()
    switch.receive(True)
    assert switch.problem() == ""
    now[0] = 0.21
    assert "silent for more than 0.2 s" in switch.problem()
    switch.receive(True)
    assert switch.problem() == ""
    switch.receive(False)
    assert "not held" in switch.problem()


@pytest.mark.parametrize("mode", [Mode.POLICY, Mode.TELEOP])
@pytest.mark.parametrize("effect", ["hold", "stop"])
def test_without_the_dead_man_switch_nothing_moves(mode: Mode, effect: str) -> None:
    task, teleop = changed(safety={"deadman": effect, "deadman_timeout_s": 60.0}), False
    made = gateway(mode, lockstep=False, task=task)
    teleop = mode is Mode.TELEOP
    assert all(tick.hold for tick in drive(made, 0, 2, teleop=teleop))
    assert made.mode is mode, "a switch that was never held is no reason to latch a stop"
    made.on_deadman(True)
    assert not any(tick.hold for tick in drive(made, 2, 2, teleop=teleop))
    made.on_deadman(False)
    tick = drive(made, 4, 1, teleop=teleop)[0]
    assert tick.hold and "not held" in tick.reason
    made.on_deadman(True)
    after = drive(made, 5, 1, teleop=teleop)[0]
    assert (after.mode is Mode.STOPPED) == after.hold == (effect == "stop")


def test_a_switch_that_is_let_go_stops_whatever_else_is_wrong() -> None:
    made = gateway(lockstep=False, task=changed(safety={"deadman": "stop"}))
    made.on_deadman(True)
    assert not any(tick.hold for tick in drive(made, 0, 2))
    late = T0 + NANOSECONDS
    tick = made.tick(late)
    assert tick is not None and "no feedback" in tick.reason
    made.on_deadman(False)
    made.on_deadman(True)
    assert made.mode is Mode.STOPPED and "not held" in made.stop_reason
    assert made.on_feedback(late, HERE) == ""
    tick = made.tick(late)
    assert tick is not None and tick.hold


def test_a_switch_that_is_let_go_in_idle_stops_nothing_later() -> None:
    made = gateway(Mode.IDLE, lockstep=False, task=changed(safety={"deadman": "stop"}))
    made.on_deadman(True)
    made.on_deadman(False)
    assert made.set_mode(Mode.POLICY) == ""
    made.on_deadman(False)
    assert drive(made, 0, 1)[0].hold and made.mode is Mode.POLICY


# --- the report of a run


def test_the_rate_of_a_run_leaves_the_time_out_in_which_nothing_was_to_be_done() -> None:
    now = [0.0]
    made, report = gateway(lockstep=False), RunReport(lambda: now[0])
    for begin in (9.0, 30.0):  # idle before the first tick, and in between
        for i in range(21):
            now[0] = begin + 0.05 * i
            report.add(follow(made, T0 + i * DT))
    assert report.text(None).startswith(
        "run report: 20.00 ticks/s over 2.0 s, and 29.0 s without ticks (idle, or no feedback yet)"
    )


def test_the_report_counts_by_reason_and_tells_numbers_together() -> None:
    made, report = gateway(lockstep=False, arming=True), RunReport()
    for tick in drive(made, 0, 2):
        report.add(tick)
    made.arm()
    give(made, chunk(500, T0 + 2 * DT, [[9.0, 0.0], STEP, STEP]), T0 + 2 * DT)
    for i in range(2, 7):
        report.add(follow(made, T0 + i * DT))
    assert report.limited == {"step size": 1}
    text = report.text(None)
    assert "  ticks: 7\n" in text and "  holds: 4\n" in text
    assert "held: not armed: an operator lets the policy move the robot (rl100 arm): 2" in text
    assert "held: no action is due: the policy's last plan has run out: 2" in text
    for place in ("0.153", "-0.21"):
        report._count(report.holds, f"joint 'joint_6' would be at {place} rad")
    assert report.holds["joint 'joint_6' would be at … rad"] == 2
