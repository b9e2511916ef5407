"""A policy that was started again moves nothing before a person has looked.

Pins: it runs the bundle of its start, not the one that was pushed, so its sequence that begins
again disarms, in every mode and with another clock too; a pushed bundle, a pause and a second
policy that has ended do not; where nobody arms, it goes on.
"""

from __future__ import annotations

import pytest

from rl100_control.gateway import Gateway
from rl100_control.testing import DT, HERE, T0, chunk, gateway, give
from rl100_control.tick import Mode, Tick

STEP = [0.01, 0.0]


def armed() -> Gateway:
    made = gateway(lockstep=False, arming=True)
    assert made.arm() == ""
    return made


def later_chunk(made: Gateway, sequence: int, ticks: int, version: str = "v1") -> Tick:
    """A chunk ``ticks`` after T0, and the tick that would execute it."""
    now = T0 + ticks * DT
    assert made.on_feedback(now, HERE) == ""
    assert give(made, chunk(sequence, now, [STEP] * 4, policy_version=version), now) == ""
    tick = made.tick(now)
    assert tick is not None
    return tick


def test_a_policy_that_started_again_is_looked_at_before_it_moves_the_robot() -> None:
    made = armed()
    assert not later_chunk(made, 40, 1, "pushed").hold
    tick = later_chunk(made, 1, 40, "of the start")
    assert tick.hold and not made.armed
    assert tick.reason == (
        "the policy started again with of the start instead of pushed: arm it (rl100 arm)"
    )
    assert later_chunk(made, 2, 50, "of the start").reason == tick.reason
    assert made.arming.restarts == 1
    assert made.arm() == ""
    assert not later_chunk(made, 3, 60, "of the start").hold
    assert "with of the start: arm it" in later_chunk(made, 1, 100, "of the start").reason


def test_a_stop_after_a_restart_says_what_arming_usually_says() -> None:
    made = armed()
    later_chunk(made, 40, 1)
    later_chunk(made, 1, 40)
    made.stop("test")
    assert made.set_mode(Mode.POLICY, clear_stop=True) == ""
    assert later_chunk(made, 2, 50).reason.startswith("not armed")


def test_a_bundle_that_is_pushed_and_a_pause_keep_the_policy_armed() -> None:
    made = armed()
    assert not later_chunk(made, 40, 1).hold
    assert not later_chunk(made, 41, 2, "v2").hold
    assert not later_chunk(made, 42, 90, "v2").hold
    assert made.armed and made.arming.restarts == 0


def test_a_new_policy_that_counted_past_the_old_one_while_it_was_refused_is_noticed() -> None:
    made = armed()
    assert not later_chunk(made, 2, 1).hold
    now = T0 + 2 * DT
    assert "two publishers" in give(made, chunk(1, now, [STEP] * 4), now)
    assert later_chunk(made, 3, 40).hold
    assert not made.armed


def test_a_policy_that_started_again_with_another_clock_is_noticed() -> None:
    made = armed()
    assert not later_chunk(made, 40, 1000).hold
    assert later_chunk(made, 1, 1).hold
    assert not made.armed


@pytest.mark.parametrize("options", [{"lockstep": True, "arming": True}, {"lockstep": False}])
def test_where_nobody_arms_a_policy_that_started_again_goes_on(options: dict[str, bool]) -> None:
    made = gateway(**options)
    assert not later_chunk(made, 40, 1).hold
    assert not later_chunk(made, 1, 40, "v2").hold
    assert made.armed and made.arming.restarts == 1


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.TAKEOVER, Mode.IDLE])
def test_a_restart_is_noticed_in_every_mode(mode: Mode) -> None:
    made = armed()
    later_chunk(made, 40, 1)
    assert made.set_mode(mode) == ""
    now = T0 + 40 * DT
    assert made.on_feedback(now, HERE) == ""
    assert give(made, chunk(1, now, [STEP]), now) == ""
    assert made.set_mode(Mode.POLICY) == ""
    assert later_chunk(made, 2, 50).reason.startswith("the policy started again")


def test_a_second_policy_that_has_ended_disarms_nothing() -> None:
    made = armed()
    for i in range(1, 20):
        now = T0 + i * DT
        assert give(made, chunk(100 + i, now, [STEP] * 4), now) == ""
        if i in range(5, 8):
            assert "two publishers" in give(made, chunk(i, now + 1, [STEP] * 4), now)
    assert not later_chunk(made, 200, 100).hold
    assert made.armed and made.arming.restarts == 0
