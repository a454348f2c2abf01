"""How long lanes wait for those that catch up before them."""

from types import SimpleNamespace

import pytest

from streams import backlog as module
from streams.backlog import LONGEST_WAIT_SECONDS, NEAR_SECONDS, UNKNOWN_SECONDS, Backlog

UPSTREAM = ("visitors", "members")


class Clock:
    """A clock that is put by hand."""

    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def behind(clock: Clock, seconds: float, of: int, left: int, lane: str = "visitors") -> Backlog:
    """The backlog of a lane that had `of` records to do and after so many seconds has some left."""
    backlog = Backlog()
    backlog.note(lane, 0, of, 0)
    clock.now += seconds
    backlog.note(lane, 0, left, 0)
    return backlog


def test_nobody_waits_for_lanes_that_are_not_behind(clock: Clock) -> None:
    assert not Backlog().is_worth(0.0, UPSTREAM)
    assert not behind(clock, 1.0, 10_000, 499).is_worth(0.0, UPSTREAM)
    assert not behind(clock, 1.0, 10_000, 5_000, lane="accounts").is_worth(0.0, UPSTREAM)


def test_an_end_that_is_near_is_waited_for(clock: Clock) -> None:
    backlog = behind(clock, 1.0, 100_000, 90_000)  # nine seconds more
    assert backlog.is_worth(NEAR_SECONDS - 9.5, UPSTREAM)
    assert not backlog.is_worth(NEAR_SECONDS - 8.5, UPSTREAM)


def test_an_end_that_is_far_is_waited_for_twice_as_long_as_the_backlog_has_lasted(clock: Clock) -> None:
    backlog = behind(clock, 3.0, 1_000_000, 990_000)
    assert backlog.is_worth(0.0, UPSTREAM)
    clock.now += 5.9  # then it had lasted for three seconds when the wait began
    assert backlog.is_worth(5.9, UPSTREAM)
    clock.now += 0.2
    assert not backlog.is_worth(6.1, UPSTREAM)


def test_a_wait_for_an_end_that_is_far_is_bounded(clock: Clock) -> None:
    backlog = behind(clock, 1_000.0, 10_000_000, 5_000_000)
    assert backlog.is_worth(LONGEST_WAIT_SECONDS - 0.1, UPSTREAM)
    assert not backlog.is_worth(LONGEST_WAIT_SECONDS, UPSTREAM)


def test_a_backlog_that_grows_has_no_end_in_sight(clock: Clock) -> None:
    backlog = behind(clock, 1_000.0, 10_000, 20_000)
    assert backlog.is_worth(LONGEST_WAIT_SECONDS + 1, UPSTREAM)  # it may just have begun to shrink
    clock.now += UNKNOWN_SECONDS
    assert not backlog.is_worth(LONGEST_WAIT_SECONDS + 1, UPSTREAM)


def test_the_end_is_that_of_the_first_lane_behind_since_others_wait_for_it(clock: Clock) -> None:
    backlog = behind(clock, 2.0, 100_000, 50_000)
    backlog.note("members", 0, 1_000, 1_000)
    clock.now += 15.0
    assert not backlog.is_worth(15.0, ("members",))
    backlog.note("visitors", 0, 10_000, 0)
    assert backlog.is_worth(15.0, UPSTREAM)


def test_a_lane_that_waits_itself_is_waited_for_until_it_has_looked(clock: Clock) -> None:
    backlog = behind(clock, 10.0, 100_000, 50_000)
    backlog.expect("members", 0)
    backlog.forget("visitors", 0)
    assert backlog.is_worth(10.0, UPSTREAM)
    clock.now += 0.5
    backlog.note("members", 0, 0, 0)
    assert not backlog.is_worth(10.5, UPSTREAM)
