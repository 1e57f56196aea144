"""The page that compares two rows, read as text."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.questions import Questions
from harness.types import InputError
from leaderboard.comparison import SMALL_SLICE
from leaderboard.pages.comparison_page import Axis, comparison_page
from leaderboard.pages.links import gallery_path, row_path
from leaderboard.rows import Losses, StageRecord
from tests.leaderboard.boards import EVIL, many_rows, questions
from tests.leaderboard.samples import sample, with_hits


def text_of(html: str) -> str:
    """What a reader sees, on one line."""
    body = html[html.index("<body>") :]
    body = re.sub(r"<script.*?</script>", " ", body, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def table(html: str, heading: str) -> list[list[str]]:
    """The cells of the first table of a section."""
    found = re.search(rf'<section[^>]*aria-labelledby="{heading}".*?</section>', html, re.DOTALL)
    assert found
    rows = re.findall(r"<tr.*?</tr>", found[0][: found[0].index("</table>")], re.DOTALL)
    return [[text_of("<body>" + cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def losses(*fates: int, untold: tuple[str, ...] = ()) -> Losses:
    return Losses(np.array(fates, np.uint8), untold)


def test_a_clear_difference_at_every_k():
    html = comparison_page(with_hits("low", 50), with_hits("top", 80), None)
    text = text_of(html)
    assert "B is better" in text
    assert "top beats low at Acc@10" in text
    assert "both right 50 only A right 0 only B right 30 neither 20" in text
    rows = table(html, "ranks-heading")
    assert [row[0] for row in rows[1:]] == ["Acc@1", "Acc@5", "Acc@10", "Acc@15", "Acc@20"]
    assert rows[3][1:4] == ["0.5000", "0.8000", "+0.3000"]
    assert rows[3][5:8] == ["0", "30", "< 0.001"]
    swapped = text_of(comparison_page(with_hits("top", 80), with_hits("low", 50), None))
    assert "A is better" in swapped
    assert "top beats low" in swapped


def test_noise_is_called_noise():
    text = text_of(comparison_page(with_hits("one", 50), with_hits("two", 50, first_miss=2), None))
    assert "Not distinguishable" in text
    assert "is better" not in text


def test_rendered_rows_say_so_beside_their_figures_and_photographs_do_not():
    html = comparison_page(with_hits("a", 50), with_hits("b", 60), questions_of(100))
    assert html.count("RENDERED") >= 6
    real = [with_hits(name, hits, rendered=False) for name, hits in (("a", 50), ("b", 60))]
    assert "RENDERED" not in comparison_page(*real, questions_of(100))


def questions_of(count: int) -> Questions:
    small = np.arange(count) < 10
    return Questions(np.arange(count), np.where(small, 5, 1), np.ones(count, np.int64), {})


def test_slices_are_set_side_by_side_and_small_ones_marked():
    count = SMALL_SLICE + 10
    first, second = with_hits("a", 20, count), with_hits("b", 70, count)
    html = comparison_page(first, second, questions_of(count))
    rows = {row[0]: row[1:] for row in table(html, "slices-heading")}
    assert rows["vest few"][:4] == ["10", "1.000", "1.000", "+0.000"]
    # 100 of category 1, of which the first has 10 and the second 60.
    assert rows["short sleeve top"][:4] == ["100", "0.100", "0.600", "+0.500"]
    assert rows["short sleeve top"][5] == "< 0.001"
    assert "Parts of fewer than 100 queries" in text_of(html)


def test_rows_of_earlier_versions_say_what_is_missing():
    text = text_of(comparison_page(sample("a"), sample("b"), None))
    assert "there are no parts to cut" in text
    assert "Neither row keeps what became of every query" in text
    known = sample("b", losses=losses(*[0] * 10))
    assert "Row A does not keep" in text_of(comparison_page(sample("a"), known, None))
    assert "No stage of either row was timed" in text_of(
        comparison_page(sample("a", stages=()), sample("b", stages=()), None)
    )


def test_how_queries_moved_between_fates():
    first = sample("a", [1, 0, 0, 2], losses=losses(0, 6, 6, 0))
    second = sample("b", [1, 3, 0, 0], losses=losses(0, 0, 6, 1))
    rows = table(comparison_page(first, second, None), "ledger-heading")
    hit = next(row for row in rows if row[0] == "hit")
    below = next(row for row in rows if row[0] == "ranked below 20")
    assert hit[1:] == ["1", "1", "·", "·", "·", "·", "·", "2"]
    assert below[1:] == ["1", "·", "·", "·", "·", "·", "1", "2"]
    assert rows[-1] == ["B, all", "2", "1", "0", "0", "0", "0", "1", "4"]


def test_what_could_not_be_told_is_a_question_mark_and_not_a_zero():
    first = sample("a", [1, 0], losses=losses(0, 6, untold=("displaced",)))
    second = sample("b", [1, 0], losses=losses(0, 3))
    html = comparison_page(first, second, None)
    displaced = next(row for row in table(html, "ledger-heading") if row[0] == "displaced")
    assert displaced[1:] == ["?"] * 8
    assert "which searched only the boxes that speak: displaced" in text_of(html)


def test_stages_are_compared_on_the_same_machine_alone():
    stages = (StageRecord("detect", 40.0), StageRecord("search", 1.0), StageRecord("search", 1.0))
    first, second = sample("a"), sample("b", stages=stages)
    rows = {row[0]: row[1:] for row in table(comparison_page(first, second, None), "stages-heading")}
    assert (rows["detect"][:2], rows["detect"][3]) == (["40.0 s", "40.0 s"], "1.00")
    assert (rows["search"][:2], rows["search"][3]) == (["–", "2.00 s"], "–")
    assert (rows["all"][:2], rows["all"][3]) == (["60.0 s", "42.0 s"], "0.70")
    other = sample("b", stages=stages, hardware={"cpu": "another", "cores": 64})
    html = comparison_page(first, other, None)
    assert "Not compared: the machines differ." in text_of(html)
    assert all(len(row) == 3 for row in table(html, "stages-heading"))
    nowhere = [sample(name, hardware={}) for name in "ab"]
    assert "Not compared" in text_of(comparison_page(*nowhere, None))


def test_what_differs_in_provenance_is_told_apart_from_what_is_the_same():
    first = sample("a", settings={"ATSS": "mirrored too"}, artifacts=("boxes:" + "1" * 64, "m4 is deep"))
    second = sample("b", artifacts=("boxes:" + "2" * 64, "m4 is deep"), code_version="0.2.0")
    html = comparison_page(first, second, None)
    differing = {row[0]: row[1:] for row in table(html, "facts-heading")}
    assert differing["ATSS"] == ["mirrored too", "as in its recipe"]
    assert differing["Code"] == ["0.1.0+abc", "0.2.0"]
    assert differing["Artifact: boxes"][0].startswith("1" * 16)
    assert "Artifact: m4" not in differing
    assert "cpu" not in differing
    assert "deep" in html


def test_rows_that_do_not_count_are_marked():
    first, second = sample("a", contamination="m4 was trained on it"), sample("b", hedged=True)
    text = text_of(comparison_page(first, second, None))
    assert "Contaminated: m4 was trained on it" in text
    assert "Class hedging" in text
    assert "Neither row counts" in text
    assert "Row B does not count" in text_of(comparison_page(sample("c"), second, None))
    given_boxes = sample("d", spec="m4 + GT")
    assert "does not rank them together" in text_of(comparison_page(sample("c"), given_boxes, None))


def test_links_lead_into_the_site_and_nowhere_else():
    first, second = sample("a"), sample("b")
    html = comparison_page(first, second, None, galleries={second.id})
    assert set(re.findall(r'href="([^"#]+)"', html)) == {
        "../index.html",
        f"../{row_path(first)}",
        f"../{row_path(second)}",
        f"../{gallery_path(second)}",
    }
    assert not re.findall(
        r'href="([^"#]+)"', comparison_page(first, second, None, galleries={second.id}, in_site=False)
    )


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"fingerprint": "e" * 64}, "data differs"),
        ({"split": "train"}, "split differs"),
        ({"protocol": "strict"}, "protocol differs"),
        ({"questions_id": "other"}, "queries differ"),
    ],
)
def test_rows_of_other_questions_are_refused(changes, what):
    with pytest.raises(InputError, match=what):
        comparison_page(sample("a", questions_id="these"), sample("b", **{"questions_id": "these", **changes}), None)


def test_texts_of_rows_are_text():
    first, second = many_rows(2, 40)
    evil = {"spec": EVIL + first.spec, "name": EVIL, "settings": {EVIL: EVIL}, "command": EVIL, "code_version": EVIL,
            "hardware": {EVIL: {EVIL: EVIL}}, "artifacts": (EVIL, f"{EVIL} is {EVIL}", f"{EVIL}:{EVIL}"),
            "contamination": EVIL, "stages": (StageRecord(EVIL, 1.0),)}  # fmt: skip
    html = comparison_page(replace(first, **evil), replace(second, name=EVIL), questions(40))
    assert "<img" not in html
    assert html.count("<script") == html.count("</script") == 1
    assert "&lt;img src=x" in html


@given(st.lists(st.floats(-1, 1), max_size=8), st.floats(-1, 1))
def test_an_axis_holds_its_bounds_with_zero_in_the_middle(bounds, difference):
    axis = Axis.over(bounds)
    assert axis.place(0.0) == 50
    assert 0 <= axis.place(difference) <= 100
    assert axis.place(difference) + axis.place(-difference) == pytest.approx(100, abs=0.011)
    for bound in bounds:
        assert abs(bound) <= axis.end + 1e-9
    assert axis.end <= max([0.01, *(abs(bound) + 0.01 for bound in bounds)]) + 1e-9
