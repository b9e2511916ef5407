"""A state that comes and goes does not flood the log, and nothing that is new waits.

Pins: a new sentence is said at once, the same one at most every five seconds; the end of a problem
is said when it has lasted, with the number of times that the problem came.
"""

from __future__ import annotations

from rl100_node.thinning import MOST, Thinned

POINTS = "fewer points than the policy expects"


class Clock:
    """A clock that is set by hand, s."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_problem_that_comes_and_goes_is_said_once_and_then_its_end() -> None:
    clock = Clock()
    log = Thinned(clock)
    said = [log.changed("running", fine=True)]
    for _ in range(200):  # ten seconds of a cloud that is now too small, now large enough
        clock.now += 0.025
        said.append(log.changed(POINTS, fine=False))
        clock.now += 0.025
        said += [log.changed("running", fine=True), log.due()]
    assert [line for line in said if line] == ["running", POINTS]
    clock.now += 1.9
    assert log.due() == ""
    clock.now += 0.2
    assert log.due() == f"running (200 times in 12 s before: {POINTS})"
    clock.now += 60.0
    assert log.due() == ""


def test_what_is_new_is_said_at_once_also_between_others() -> None:
    clock = Clock()
    log = Thinned(clock)
    assert log.changed(POINTS, fine=False) == POINTS
    assert log.changed("running", fine=True) == ""
    assert log.changed("no image", fine=False) == "no image"


def test_the_same_sentence_is_said_again_after_five_seconds_when_it_is_still_so() -> None:
    clock = Clock()
    log = Thinned(clock)
    log.changed(POINTS, fine=False)
    log.changed("no image", fine=False)
    clock.now += 1.0
    assert log.changed(POINTS, fine=False) == ""
    clock.now += 3.9
    assert log.due() == ""
    clock.now += 0.2
    assert log.due() == POINTS
    assert log.due() == ""


def test_sentences_that_never_come_again_do_not_pile_up() -> None:
    log = Thinned(Clock())
    for number in range(10 * MOST):
        assert log.changed(f"chunk {number} is late", fine=False)
    assert len(log._times) == MOST


def test_a_problem_that_came_once_ends_without_a_count_and_is_new_after_that() -> None:
    clock = Clock()
    log = Thinned(clock)
    log.changed(POINTS, fine=False)
    clock.now += 10.0
    log.changed("running", fine=True)
    clock.now += 2.1
    assert log.due() == "running"
    assert log.changed(POINTS, fine=False) == POINTS
