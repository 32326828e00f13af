"""The end of a piece's time, and signals that come at awkward moments."""

import signal
import time

import pytest

from harness.run.clock import Clock, process_age
from harness.train.loop import Interrupted

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


def _busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_the_alarm_comes_as_long_before_the_end_as_was_reserved() -> None:
    clock = Clock(minutes=1, spent=30)
    with pytest.raises(Interrupted), clock:
        clock.reserve(29.7)
        _busy(20)
    assert clock.over
    assert 25 < clock.left() <= 29.75


def test_the_seconds_until_the_alarm() -> None:
    with Clock() as clock:
        clock.reserve(5)
        assert clock.until_alarm() == float("inf")
    with pytest.raises(Interrupted), Clock(minutes=2) as clock:
        clock.reserve(20)
        assert 95 < clock.until_alarm() <= 100
        clock.end()
    assert clock.until_alarm() == 0


def test_a_reserve_that_does_not_fit_ends_at_once() -> None:
    clock = Clock(minutes=1, spent=3600)
    with pytest.raises(Interrupted), clock:
        clock.reserve(5)
        _busy(20)
    assert clock.left() < 0


def test_without_minutes_there_is_no_end() -> None:
    clock = Clock()
    with clock:
        clock.reserve(1e9)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        clock.check()
    assert not clock.over
    assert clock.left() == float("inf")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGALRM])
def test_a_stop_waits_for_the_end_of_what_belongs_together(number: int) -> None:
    done = []
    clock = Clock(minutes=60)
    with pytest.raises(Interrupted), clock:
        with clock.undisturbed():
            signal.raise_signal(number)
            done.append("written")
        done.append("not reached")
    assert done == ["written"]
    assert clock.over == (number == signal.SIGALRM)


def test_an_alarm_that_a_trainer_swallowed_is_found_again() -> None:
    clock = Clock(minutes=60)
    with pytest.raises(Interrupted), clock:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as a trainer's in its last moment
        signal.raise_signal(signal.SIGALRM)
        clock.check()
    assert clock.over


def test_handlers_and_timer_are_put_back() -> None:
    before = [signal.getsignal(n) for n in HANDLED]
    with Clock(minutes=60) as clock:
        clock.reserve(0)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
    assert [signal.getsignal(n) for n in HANDLED] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_age_of_a_process_grows_with_time() -> None:
    first = process_age()
    _busy(0.05)
    assert 0 < first < process_age()
