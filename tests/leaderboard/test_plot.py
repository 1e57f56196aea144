import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.pages.plot import LINKED, plots
from leaderboard.pages.rendering import fragment
from leaderboard.rows import StageRecord
from leaderboard.standings import sections
from tests.leaderboard.boards import many_rows
from tests.leaderboard.samples import with_hits


def timed(name: str, hits: int, seconds: float, cpu: str = "some", **changes):
    return with_hits(name, hits, stages=(StageRecord("all", seconds),), hardware={"cpu": cpu}, **changes)


def test_the_front_goes_from_cheap_to_good():
    rows = [timed("cheap", 40, 1.0), timed("dear", 80, 100.0), timed("beaten", 39, 50.0), timed("middle", 60, 10.0)]
    (plot,) = plots(sections(rows)[0])
    assert [point.name for point in plot.on_front] == ["cheap", "middle", "dear"]
    assert [point.name for point in plot.points] == ["cheap", "middle", "dear", "beaten"]
    xs = [point.x for point in plot.on_front]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02), "tenfold is the same step everywhere"
    assert all(point.high < point.y < point.low for point in plot.points), "y goes downwards"
    x0, y0, *_ = [10 * value for value in (plot.points[0].x, plot.points[0].y)]
    assert plot.front.startswith(f"M{x0:.0f} {y0:.0f}H")
    assert plot.front.endswith("H1000")


def test_each_machine_has_its_own():
    rows = [
        timed("a", 40, 1.0),
        timed("b", 80, 2.0, "other"),
        timed("c", 70, 3.0, "other"),
        with_hits("d", 90, stages=()),
    ]
    found = plots(sections(rows)[0])
    assert [(plot.machine, plot.num_rows) for plot in found] == [("other", 2), ("some", 1)]
    assert not plots(sections([with_hits("d", 90, stages=())])[0])


def test_rows_that_do_not_count_are_in_no_plot():
    rows = [timed("fair", 40, 1.0), timed("saw", 90, 0.5, contamination="it saw them")]
    (plot,) = plots(sections(rows)[0])
    assert [point.name for point in plot.points] == ["fair"]


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1e7)), min_size=1, max_size=12))
def test_everything_stays_in_the_frame(rows):
    (plot,) = plots(sections([timed(f"r{n}", hits, seconds) for n, (hits, seconds) in enumerate(rows)])[0])
    for point in plot.points:
        assert all(0 <= value <= 100 for value in (point.x, point.y, point.low, point.high))
    for place, text in (*plot.x_ticks, *plot.y_ticks):
        assert 0 <= place <= 100
        assert text
    assert len(plot.y_ticks) >= 2


@pytest.mark.parametrize("seconds", [0.004, 0.3, 7, 45, 90, 4000, 100_000])
def test_the_time_axis_can_be_read(seconds):
    (plot,) = plots(sections([timed("a", 40, seconds), timed("b", 60, 2 * seconds)])[0])
    assert 2 <= len(plot.x_ticks) <= 6
    places = [place for place, _ in plot.x_ticks]
    assert places == sorted(places)


def test_a_large_board_stays_small():
    (section,) = sections(many_rows(3000), tell_apart=False)
    found = plots(section)
    html = fragment("plot.html", plots=found, rendered=True, open=True)
    assert len(html) < 250_000
    for plot in found:
        behind = len(plot.points) - len(plot.on_front)
        assert behind == LINKED
        assert 0 < len(re.findall("M", plot.dots)) <= plot.num_rows - len(plot.points)
    assert html.count("<a ") == sum(len(plot.points) + len(plot.on_front) for plot in found)
