"""What the gateway believes of the robot's position: one measurement far from the others moves no
robot, a place is believed once some agree, a robot outside its limits is not pulled back by a
hold, and one that does not follow is not pushed for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl100_contracts.task import NANOSECONDS
from rl100_control.feedback import CONFIRMATIONS, Blocks, Feedback, News
from rl100_control.gateway import Gateway
from rl100_control.testing import DT, HERE, T0, TASK, changed, chunk, follow, gateway, give, settle
from rl100_control.tick import Mode

FAR = np.array([-0.25, 0.25])
FASTEST = np.array(TASK.limits.velocity) * DT * 1e-9 + 1e-9


def test_the_first_position_is_believed_when_some_measurements_agree() -> None:
    """A driver that starts may send zeros first; a hold there would be a leap."""
    made = Gateway(TASK, Mode.POLICY, lockstep=False)
    assert "not certain" in made.on_feedback(T0, np.zeros(2))
    there = np.array([0.2, 0.2])
    answers = [made.on_feedback(T0 + i * DT, there) for i in range(1, 2 + CONFIRMATIONS)]
    assert [bool(answer) for answer in answers] == [True, True, False, False]
    tick = made.tick(T0 + 4 * DT)
    assert tick is not None and tick.hold
    np.testing.assert_array_equal(tick.target, there)


@pytest.mark.parametrize("state", ["moving", "unarmed", "stopped", "teleop"])
def test_one_measurement_far_away_moves_nothing(state: str) -> None:
    made = gateway(
        Mode.TELEOP if state == "teleop" else Mode.POLICY,
        lockstep=False,
        arming=state == "unarmed",
    )
    if state == "stopped":
        made.stop("test")
    give(made, chunk(1, T0, [[0.01, 0.0]] * 8), teleop=state == "teleop")
    last = follow(made, T0)
    assert "leapt by 0.2" in made.on_feedback(T0 + DT + 1, FAR)
    tick = made.tick(T0 + DT + 1)
    assert tick is not None and tick.hold and not tick.send
    np.testing.assert_array_equal(tick.target, last.target)
    assert made.on_feedback(T0 + 2 * DT, last.target) == ""
    after = made.tick(T0 + 2 * DT)
    assert after is not None and after.send
    assert (np.abs(after.target - last.target) <= FASTEST).all()
    assert after.hold == (state in ("unarmed", "stopped"))


def test_a_velocity_is_ended_while_the_position_is_in_doubt() -> None:
    task = changed(action={"command_type": "geometry_msgs/msg/TwistStamped"})
    made = gateway(lockstep=False, task=task)
    give(made, chunk(1, T0, [[0.01, 0.0]] * 8))
    assert follow(made, T0).velocity.any()
    made.on_feedback(T0 + DT + 1, FAR)
    tick = made.tick(T0 + DT + 1)
    assert tick is not None and tick.hold and tick.send and not tick.velocity.any()


def test_a_robot_that_stays_elsewhere_is_believed_and_motion_starts_there() -> None:
    made = gateway(lockstep=False)
    follow(made, T0)
    settle(made, T0 + 4 * DT, FAR)
    give(made, chunk(1, T0 + 4 * DT, [[0.01, 0.0]]), T0 + 4 * DT)
    tick = made.tick(T0 + 4 * DT)
    assert tick is not None and not tick.hold
    np.testing.assert_allclose(tick.target, FAR + np.array([0.01, 0.0]), atol=1e-8)


def test_in_lockstep_a_leap_is_a_reset() -> None:
    feedback = Feedback(TASK, lockstep=True)
    assert feedback.take(T0, HERE) is News.ELSEWHERE
    assert feedback.take(T0 + DT, HERE) is News.NEXT
    assert feedback.take(T0 + 2 * DT, FAR) is News.ELSEWHERE
    assert feedback.take(T0 + NANOSECONDS, FAR) is News.GAP
    assert feedback.take(T0, FAR) is News.RESTARTED


def test_measurements_that_agree_must_last_a_control_period() -> None:
    """A driver at 1 kHz sends three wrong ones in two milliseconds."""
    feedback = Feedback(TASK, lockstep=False)
    for i in range(DT // 1_000_000):
        assert isinstance(feedback.take(T0 + i * 1_000_000, FAR), str)
    assert feedback.take(T0 + DT, FAR) is News.ELSEWHERE


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["here", "far", "farther", "late", "gap", "restart", "nan"]), max_size=25
    )
)
def test_what_is_believed_agrees_with_most_of_the_last_measurements(kinds: list[str]) -> None:
    feedback, now, recent = Feedback(TASK, lockstep=False), T0 * 100, []
    places = {"far": FAR, "farther": -FAR, "nan": np.array([np.nan, 0.0])}
    for kind in kinds:
        now += {"late": -DT // 2, "gap": NANOSECONDS, "restart": -NANOSECONDS}.get(kind, DT)
        place = places.get(kind, HERE)
        before = feedback.position
        taken = feedback.take(now, place)
        recent = [*recent[-2:], place] if np.isfinite(place).all() else recent
        if not isinstance(taken, str):
            assert feedback.position is place and feedback.doubt == ""
            close = before is not None and np.abs(before - place).max() < 0.2
            assert close or all((other == place).all() for other in recent)
        else:
            assert feedback.position is before


# --- outside the limits


def test_a_hold_outside_the_limits_pulls_nothing_and_motion_comes_back_slowly() -> None:
    outside = np.array([0.38, 0.0])
    assert outside[0] > TASK.limits.position_high[0] + 0.1
    made = gateway(lockstep=False, arming=True)
    made.begin()
    settle(made, T0 + 4 * DT, outside)
    tick = made.tick(T0 + 4 * DT)
    assert tick is not None and tick.hold and not tick.send
    np.testing.assert_array_equal(tick.target, outside)
    assert made.arm() == ""
    place = outside
    for i in range(5, 20):
        now = T0 + i * DT
        give(made, chunk(i, now, [[0.005, 0.0]]), now)
        tick = follow(made, now)
        assert not tick.hold and tick.send
        assert (np.abs(tick.target - place) <= FASTEST).all() and tick.target[0] <= place[0]
        place = tick.target
    assert place[0] == TASK.limits.position_high[0]


def test_just_outside_is_the_noise_of_a_robot_at_the_limit() -> None:
    edge = TASK.limits.position_high[0]
    made = gateway(lockstep=False)
    made.begin()
    settle(made, T0 + 4 * DT, [edge + 1e-3, 0.0])
    tick = made.tick(T0 + 4 * DT)
    assert tick is not None and tick.hold and tick.send and tick.target[0] == edge


# --- a robot that does not follow


def test_a_blocked_robot_gets_time_and_then_a_stop() -> None:
    steady = [0]
    made = gateway(lockstep=False, steady_ns=lambda: steady[0])
    held: list[tuple[int, str]] = []
    for i in range(120):
        now = T0 + i * DT
        steady[0] = i * DT
        give(made, chunk(i + 1, now, [[0.03, 0.0]]), now)
        tick = made.tick(now)
        assert tick is not None
        if tick.hold:
            held.append((i, tick.reason))
        made.on_feedback(now + DT, HERE)
        if made.mode is Mode.STOPPED:
            break
    away = [i for i, reason in held if "max_tracking_error" in reason]
    assert len(away) == 2 and away[1] - away[0] > 20, "a second passes before the next try"
    assert "3 times within 30 s" in made.stop_reason and held[-1][1] == made.stop_reason
    assert "clear_stop" in made.set_mode(Mode.POLICY)
    assert made.set_mode(Mode.POLICY, clear_stop=True) == ""
    now = T0 + 200 * DT
    made.on_feedback(now, HERE)
    give(made, chunk(500, now), now)
    assert not follow(made, now).hold


def test_a_robot_that_is_moved_by_hand_while_it_holds_is_not_blocked() -> None:
    made = gateway(lockstep=False, arming=True, steady_ns=lambda: 0)
    place = 0.0
    for i in range(60):
        made.on_feedback(T0 + i * DT, np.array([place, 0.0]))
        tick = made.tick(T0 + i * DT)
        assert tick is not None and tick.hold and made.mode is Mode.POLICY
        place += 0.2 * TASK.limits.max_tracking_error if i < 20 else 0.0
        place = min(place, 0.25)


def test_blocks_long_ago_do_not_count() -> None:
    steady = [0]
    blocks = Blocks(lambda: steady[0])
    for second in (0, 15, 31, 47, 62):
        steady[0] = second * NANOSECONDS
        assert blocks.add() == "" and blocks.waiting()
    steady[0] += NANOSECONDS
    assert not blocks.waiting()
    assert "protective stop" in blocks.add()


# --- somebody else


def test_while_somebody_else_sends_commands_nothing_is_sent() -> None:
    made = gateway(lockstep=False)
    give(made, chunk(1, T0, [[0.01, 0.0]] * 8))
    assert not follow(made, T0).hold
    made.intruder = "'other' publishes commands on /tool_target too: end it"
    tick = follow(made, T0 + DT)
    assert tick.hold and not tick.send and tick.reason == made.intruder
    made.intruder = ""
    assert not follow(made, T0 + 2 * DT).hold
