"""Statistics of made-up numbers, turns on a made-up clock, and a made-up machine's load."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from repvgg.benchmarking import machine, turns
from repvgg.benchmarking.figures import Figures, Spread, figures_of
from repvgg.benchmarking.machine import ForeignLoad, LoadMeter


def test_spread_is_median_and_quartiles() -> None:
    spread = Spread.of([9.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)
    assert spread.scaled(10) == Spread(30.0, 20.0, 40.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_figures_are_per_image_and_ratios_of_the_same_round() -> None:
    """In the second round the machine is three times as slow for both, which no ratio may show."""
    first = [[0.010, 0.012, 0.014], [0.030, 0.036, 0.042]]
    second = [[0.003], [0.009]]
    one, other = figures_of([first, second], [4, 2])
    assert one.calls == 6
    assert one.seconds.median == pytest.approx(0.022)
    assert one.images_per_second == pytest.approx(4 / 0.022)
    assert one.milliseconds_per_image.median == pytest.approx(22 / 4)
    assert (one.times_first.low, one.times_first.median, one.times_first.high) == (1.0, 1.0, 1.0)
    # 4 images in 12 ms against 2 in 3 ms.
    assert other.times_first.median == pytest.approx(2.0)
    assert other.times_first.high == pytest.approx(2.0)


def test_the_median_forgives_a_hiccup() -> None:
    (figures,) = figures_of([[[0.01] * 9 + [5.0]]], [1])
    assert figures == Figures(Spread(0.01, 0.01, 0.01), Spread(1.0, 1.0, 1.0), 10, 1)


class Clock:
    """Time passes only in calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: self.now, sleep=self.order.append))

    def call(self, name: str, seconds: list[float]) -> Any:
        remaining = iter(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += next(remaining)

        return run


def test_contestants_take_turns_and_the_first_call_of_a_turn_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    told: list[int] = []
    rounds: list[int] = []
    found = turns.take_turns(
        [clock.call("a", [9, 1, 2, 9, 3, 4]), clock.call("b", [9, 5, 9, 6])],
        [2, 1],
        2,
        on_turn=told.append,
        on_round=lambda: rounds.append(len(clock.order)),
    )
    assert found == [[[1, 2], [3, 4]], [[5], [6]]]
    rest = turns.REST
    assert clock.order == [rest, "a", "a", "a", rest, "b", "b"] * 2
    assert told == [0, 1, 0, 1]
    assert rounds == [7, 14]


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, turns.MOST_CALLS), (0.1, 3), (7.0, 1)])
def test_a_turn_lasts_about_as_long_for_all(monkeypatch: pytest.MonkeyPatch, seconds: float, calls: int) -> None:
    clock = Clock(monkeypatch)
    # The first call compiles, and says nothing about the others.
    assert turns.warm_up(clock.call("a", [30.0, *[seconds] * turns.WARM_UP])) == calls


def test_load_of_others_is_what_this_process_did_not_do() -> None:
    """Rounds of 10 s on 2 cores: this process computes 15 s in each; others 0 and 5. Counters are coarse."""
    readings = iter([(0.0, 100.0, 30.0), (10.0, 115.0, 45.0), (20.0, 135.0, 60.0), (30.0, 150.0, 75.01)])
    meter = LoadMeter(lambda: next(readings))
    for _ in range(3):
        meter.end_round()
    assert meter.load().rounds == pytest.approx((0.0, 0.5, 0.0))


def test_what_counts_as_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a virtual machine's host took is others' work; waiting is nobody's, and a guest's time is counted once."""
    times = {"user": 5.0, "system": 2.0, "idle": 100.0, "iowait": 50.0, "steal": 1.0, "guest": 3.0, "guest_nice": 1.0}
    own = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=3.0, system=0.5))
    totals = SimpleNamespace(_asdict=lambda: times)
    monkeypatch.setattr(machine, "psutil", SimpleNamespace(cpu_times=lambda: totals, Process=lambda: own))
    assert machine.read_times()[1:] == (8.0, 3.5)


def test_load_is_said() -> None:
    quiet, loud = ForeignLoad((0.0, 0.02, 0.01)), ForeignLoad((0.0, 0.4, 0.8))
    assert not quiet.heavy
    assert str(quiet) == "Other processes kept 0.01 cores busy meanwhile (at most 0.02)."
    assert loud.heavy
    assert "0.40 cores busy meanwhile (at most 0.80): figures are too low, most of all" in str(loud)


def test_this_machine_has_a_name_and_what_changes_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = machine.this_machine()
    assert found.processor
    assert found.cores >= 1
    assert found.memory_gb > 0
    assert found.switches["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in str(found)
    assert found.versions["keras"]


def test_the_real_clock_measures() -> None:
    """Against a mistake in the seconds themselves: a call that sleeps is as long as its sleep, or a little longer."""
    (found,) = turns.take_turns([lambda: time.sleep(0.01)], [2], 1, on_turn=lambda _: None, on_round=lambda: None)
    assert all(seconds >= 0.009 for seconds in found[0])
