"""How the seconds of a pass over photos divide among the networks that make it."""

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.timing import PassClock, StageTime, shares_of, stages_of_pass


def test_waiting_and_each_network_are_told_apart() -> None:
    clock, own = PassClock(), {"waiting": 0.0, "m4": 0.0, "m9": 0.0}

    def nap(of: str, seconds: float) -> None:
        began = time.perf_counter()
        time.sleep(seconds)
        own[of] += time.perf_counter() - began

    def photos():
        for number in range(3):
            nap("waiting", 0.03)
            yield number
        nap("waiting", 0.02)

    seen = []
    for number in clock.waited_for(photos()):
        for name, seconds in (("m4", 0.02), ("m9", 0.04)):
            with clock.network(name):
                nap(name, seconds)
        time.sleep(0.03)  # neither
        seen.append(number)
    assert seen == [0, 1, 2]
    assert clock.waiting_seconds == pytest.approx(own["waiting"], rel=0.05)
    assert clock.network_seconds == {name: pytest.approx(own[name], rel=0.05) for name in ("m4", "m9")}


def test_what_ends_the_photos_comes_through() -> None:
    def photos():
        yield 1
        raise KeyError("photo")

    clock = PassClock()
    with pytest.raises(KeyError):
        list(clock.waited_for(photos()))
    with pytest.raises(OSError, match="network"), clock.network("m4"):
        raise OSError("network")
    assert clock.network_seconds["m4"] >= 0


def test_each_network_has_its_own_and_all_else_in_equal_parts() -> None:
    # 2 s are neither network nor waiting: loading and writing.
    found = shares_of(10.0, {"m4": (1.0, 0.5), "m9": (6.0, 0.5)})
    assert found == {"m4": (2.5, 0.5), "m9": (7.5, 0.5)}
    # Two processes, or an earlier run, were busy for longer than the clock on the wall.
    assert shares_of(4.0, {"m4": (1.0, 1.0), "m9": (5.0, 1.0)}) == {"m4": (1.0, 0.5), "m9": (3.0, 0.5)}
    assert shares_of(4.0, {"m4": (1.0, 1.0), "m9": None}) == {"m4": (2.0, None), "m9": (2.0, None)}
    assert shares_of(4.0, {"m4": (0.0, 0.0)}) == {"m4": (4.0, 0.0)}


seconds = st.floats(0, 1e4)


@given(seconds, st.dictionaries(st.text(max_size=3), st.none() | st.tuples(seconds, seconds), min_size=1))
def test_shares_add_up_to_the_whole(whole, told) -> None:
    found = shares_of(whole, told)
    assert found.keys() == told.keys()
    assert sum(share for share, _ in found.values()) == pytest.approx(whole, abs=1e-6)
    for share, waiting in found.values():
        assert share >= -1e-9
        assert waiting is None or -1e-9 <= waiting <= share + 1e-6


@dataclass
class Result:
    seconds: float
    waiting_seconds: float | None
    made_on: str | None = "here"


def test_the_stages_of_a_pass_add_up() -> None:
    results = {"embed m4": Result(4.0, 1.0), "embed m9": Result(8.0, 1.0), "embed old": Result(3.0, None, None)}
    found = stages_of_pass(results, {"embed m4", "embed m9"}, 12.6, "decode and crop", "crops", 7)
    assert [(one.stage, one.cost_seconds, one.from_store) for one in found] == [
        ("decode and crop", 2.0, False),
        ("embed m4", 3.0, False),
        ("embed m9", 7.0, False),
        ("embed old", 3.0, True),
    ]
    assert sum(one.seconds for one in found) == pytest.approx(12.6)
    assert [round(one.seconds, 6) for one in found] == [2.1, 3.15, 7.35, 0]
    assert {(one.count, one.unit) for one in found} == {(7, "crops")}
    assert [one.made_on for one in found] == [None, "here", "here", None]


def test_a_pass_that_was_there_costs_what_it_cost() -> None:
    found = stages_of_pass({"a": Result(4.0, 0.0), "b": Result(8.0, None)}, (), 0.02, "decode", "photos", 3)
    assert [(one.stage, one.seconds, one.cost_seconds) for one in found] == [("a", 0.01, 4.0), ("b", 0.01, 8.0)]
    assert stages_of_pass({}, (), 0.1, "decode", "photos", 0) == []


def test_seconds_of_several_machines_name_them_all() -> None:
    stage = StageTime("s", 0.0)
    stage.note([Result(1, None, "one"), Result(1, None, "two"), Result(1, None, "one")], True, 1)
    assert stage.made_on == "one; two"
    stage.note([Result(1, None, "one"), Result(1, None, None)], True, 1)
    assert stage.made_on is None
