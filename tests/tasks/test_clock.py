"""The seconds of a translation's stages, on a clock that the test moves."""

import pytest

from localdiff_cli.tasks import translation
from localdiff_cli.tasks.translation import Clock


@pytest.fixture
def moved(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(translation.time, "perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_a_stage_within_another_is_counted_once(moved):
    clock = Clock()
    with clock.stage("outer"):
        moved(1)
        with clock.stage("inner"):
            moved(2)
        moved(4)
    assert clock.seconds == {"inner": 2, "outer": 5}


def test_each_item_is_timed_as_it_is_made_and_what_is_done_with_it_is_not(moved):
    def made():
        for number in range(3):
            moved(1)
            yield number

    clock = Clock()
    for _ in clock.each("made", made()):
        moved(10)
    assert clock.seconds == {"made": 3}


def test_what_is_done_before_the_first_item_counts_too(moved):
    def made(parts):
        everything = list(parts)
        moved(5)
        yield from everything

    def read():
        moved(1)
        yield 0

    clock = Clock()
    list(clock.each("detect", made(clock.each("read", read()))))
    assert clock.seconds == {"read": 1, "detect": 5}
