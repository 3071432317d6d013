"""Runs take turns; the least time counts and the first result is kept."""

from examples.benchmarks.timing import Timing, by_turns, clocked


def test_runs_take_turns_and_the_first_result_is_kept():
    order = []

    def run(name, seconds):
        def turn():
            order.append(name)
            return seconds.pop(0), len(order)

        return turn

    timings = by_turns({"a": run("a", [3.0, 2.0]), "b": run("b", [5.0, 6.0])}, 2)
    assert order == ["a", "b", "a", "b"]
    assert timings["a"] == Timing((3.0, 2.0), 1)
    assert (timings["a"].seconds, timings["a"].spread) == (2.0, 0.5)
    assert timings["b"].seconds == 5.0


def test_a_clocked_run_gives_its_time_and_its_result():
    seconds, result = clocked(lambda: "image")()
    assert seconds >= 0
    assert result == "image"
