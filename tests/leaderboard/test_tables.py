"""Published figures, and the paper's tables beside ours."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.types import InputError
from leaderboard.entered import EnteredScore
from leaderboard.pages.tables_page import html_page, write_html_page
from leaderboard.published import published, read_published
from leaderboard.tables import PaperTable, final_results, paper_tables, settings_table, sources_table

TOLD = EnteredScore("m1-16 + WBF_5", "ours", "test", {10: 0.8531}, "the server")


def tables(measured, rendered=False, data="validation 3fa9", **more) -> dict[int, PaperTable]:
    return {table.number: table for table in paper_tables(measured, rendered, data, **more)}


def test_published_numbers():
    """Spot checks against the paper: one cell of each table, and the counts of rows."""
    tables = published()
    assert [table.number for table in tables.tables] == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert [len(table.rows) for table in tables.tables] == [6, 5, 18, 5, 8, 3, 6, 1, 5, 10]
    cells = [(1, 2, "images", 416840), (2, 2, "APS", 30.1), (3, 15, "Acc@10", 0.882), (5, 4, "AP50", 85.8)]
    cells += [(6, 4, "test Acc@10", 0.851945), (7, 1, "Acc@1", 0.650885), (8, 0, "Acc@10", 0.872082)]
    cells += [(9, 0, "AP", 0.638), (10, 3, "Acc@10", 0.435), (11, 6, "Acc@20", 0.665), (11, 7, "Acc@1", 0.244)]
    for number, row, column, value in cells:
        assert tables.table(number).value(row, column) == value
    assert tables.table(3).value(7, "Acc@10") is None
    with pytest.raises(InputError, match="table 4: unknown, expected one of 1, 2, 3, 5, 6, 7, 8, 9, 10, 11"):
        tables.table(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pairs = 873234", "paris = 873234"), "tables.0: .*row 0: paris"),
        (("AP = 72.8", "AP = 728"), "tables.1: .*row 0: AP: 728"),
        (('unit = "count"', 'unit = "apples"'), "tables.0.unit"),
        (('title = "Detection"', 'titel = "Detection"'), "tables.1"),
        (('model = "m0", ', ""), "row 0: without model"),
        (("[[tables]]", "[[tables"), "cannot be read"),
        (("tolerance = { images = 0 }", "tolerance = { photos = 0 }"), "tolerance: 'photos' is no column"),
        (("tolerance = { images = 0 }", "tolerance = { images = -1 }"), "tolerance: expected numbers >= 0"),
        (('tolerance_reason = """', 'title = """'), "cannot be read"),
        (("{ AP50 = 1.0 }\ntolerance_reason", "{ AP50 = 1.0 }\nsource"), "expected a tolerance_reason beside it"),
        (('entered = ["Acc@10"]', 'entered = ["Acc@99"]'), "entered: 'Acc@99' is no column"),
    ],
)
def test_wrong_published_files_are_refused(tmp_path, change, message):
    import leaderboard.published

    text = Path(leaderboard.published.__file__).with_name("published.toml").read_text()
    path = tmp_path / "published.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(InputError, match=message):
        read_published(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_published(tmp_path / "nowhere.toml")


def test_every_tolerance_has_its_reason():
    judged = [table for table in published().tables if table.tolerance]
    assert [table.number for table in judged] == [1, 2, 3, 5, 6, 7]
    for table in judged:
        assert len(table.tolerance_reason) > 80
    assert "APS" not in published().table(2).tolerance


def test_published_and_measured_stay_apart():
    measured = {
        2: {"ATSS": {"AP": 0.412, "AP50": 0.7004, "APS": None}},
        5: {"WBF_5": {"AP50": 0.72}},
        6: {"m0,m4": {"validation Acc@10": 0.5}},
        7: {"WBF_5 (126k) | NN": {"Acc@10": 0.4}, "WBF_5 (2k) | NN": {"Acc@1": 0.1}},
    }
    found = tables(measured, rendered=True)
    assert list(found) == [2, 3, 5, 6, 7]
    for table in found.values():
        kinds = [column.kind for column in table.columns]
        assert {"label", "published", "measured", "reproduced"} | ({"entered"} if table.number == 6 else set()) == set(
            kinds
        )
        assert all("RENDERED" in column.heading for column in table.columns if column.kind == "measured")
        assert not any("RENDERED" in column.heading for column in table.columns if column.kind != "measured")
        assert all(len(row) == len(kinds) for row in table.rows)
        assert table.rendered
    assert found[2].rows[0][:6] == ("ATSS", 72.8, pytest.approx(41.2), None, 83.6, pytest.approx(70.04))
    assert found[2].rows[1][2] is None
    assert found[3].rows[7] == ("m7", "used DeepFashion2 train and valid set to train", None, None, None)
    assert found[6].rows[-1] == ("m0,m4", None, 0.5, None, None, None, None)
    assert found[7].rows[1] == ("WBF_5 (126k)", "NN", 0.650885, None, None, 0.853761, 0.4, None)
    assert found[7].rows[-1] == ("WBF_5 (2k)", "NN", None, 0.1, None, None, None, None)


def test_table_6_says_which_column_is_of_which_split():
    headings = [column.heading for column in tables({}, rendered=True)[6].columns]
    assert headings == [
        "ensemble",
        "validation Acc@10 published (DeepFashion2 validation)",
        "validation Acc@10 measured on RENDERED data (validation 3fa9)",
        "validation Acc@10 reproduced (within 0.006)",
        "test Acc@10 published (DeepFashion2 test)",
        "test Acc@10 told elsewhere, not measured here",
        "test Acc@10 reproduced (within 0.005)",
    ]


def test_figures_of_photographs_are_judged():
    measured = {
        2: {"ATSS": {"AP": 0.738, "AP50": 0.8251, "AP75": 0.8161, "APS": 0.527}},
        3: {"m0": {"Acc@10": 0.862}, "m1": {"Acc@10": 0.8669}, "m7": {"Acc@10": 0.9}, "other": {"Acc@10": 0.9}},
        6: {"m4": {"validation Acc@10": 0.88}},
    }
    found = tables(measured)
    # AP 72.8 and 73.8, AP50 83.6 and 82.51, AP75 80.6 and 81.61; small garments are not judged.
    assert found[2].rows[0][3::3][:1] == ("yes",)
    assert found[2].rows[0][:12] == (
        *("ATSS", 72.8, pytest.approx(73.8), "yes", 83.6, pytest.approx(82.51), "no, by -1.09"),
        *(80.6, pytest.approx(81.61), "no, by +1.01", 52.7, pytest.approx(52.7)),
    )
    assert [column.kind for column in found[2].columns[10:13]] == ["published", "measured", "published"]
    judged = {row[0]: row[4] for row in found[3].rows if row[3] is not None}
    assert judged == {"m0": "yes", "m1": "no, by -0.0061", "m7": None, "other": None}
    assert found[6].rows[0][:4] == ("m4", 0.869435, 0.88, "no, by +0.0106")
    assert published().table(3).tolerance_reason in found[3].notes
    assert not any("no figure measured here says" in note for table in found.values() for note in table.notes)
    assert not any(table.rendered for table in found.values())


@pytest.mark.parametrize(
    ("rendered", "reason"), [(True, "Measured on RENDERED data"), (False, "Measured on 800 photos of train")]
)
def test_other_data_is_never_judged_and_a_note_says_why(rendered, reason):
    measured = {3: {"m0": {"Acc@10": 0.868}}}
    found = tables(measured, rendered, not_judged="Measured on 800 photos of train")
    assert [row[4] for row in found[3].rows] == [None] * 18
    assert any(note.startswith(reason) for note in found[3].notes)
    assert not any(note.startswith(reason) for note in found[5].notes), "nothing was measured for it"


@given(st.floats(0, 1), st.floats(0, 1))
def test_judgement_is_the_distance(told, ours):
    found = published().table(7).reproduced("Acc@1", told, ours)
    distance = abs(told - ours)
    if abs(distance - 0.008) > 1e-8:
        assert (found == "yes") == (distance < 0.008)
    if found != "yes":
        assert found == f"no, by {ours - told:+.4f}"


def test_what_is_missing_is_not_judged():
    table = published().table(3)
    assert table.reproduced("Acc@10", None, 0.5) is table.reproduced("Acc@10", 0.5, None) is None
    assert published().table(8).reproduced("Acc@10", 0.5, 0.5) is None


def test_entered_scores_fill_the_test_column():
    found = tables({}, rendered=True, entered={6: {"m1-16": TOLD, "others": replace(TOLD, source="a mail")}})[6]
    rows = {row[0]: row for row in found.rows}
    assert rows["m1-16"][4:] == (0.854168, 0.8531, "yes")
    assert rows["others"] == ("others", None, None, None, None, 0.8531, None)
    assert "Test scores were told by: m1-16: the server; others: a mail." in found.notes
    assert "RENDERED" not in " ".join(found.notes), "nothing was measured"


def test_only_entered_scores_of_photographs_have_a_place():
    with pytest.raises(ValueError, match="table 6: m4: a score of rendered data"):
        tables({}, entered={6: {"m4": replace(TOLD, rendered=True)}})
    with pytest.raises(ValueError, match=r"table 3: m4: .* no place there"):
        tables({}, entered={3: {"m4": TOLD}})


def test_final_results_have_entered_scores_below():
    other = replace(TOLD, name="better", acc={10: 0.9, 1: 0.7})
    table = final_results([TOLD, other, replace(TOLD, rendered=True), replace(TOLD, split="validation")])
    assert [column.kind for column in table.columns] == [*["label"] * 3, "published", "entered", "label"]
    assert table.rows[1] == ("2020", "2", "NAVER/LINE Vision", 0.854168, None, None)
    assert table.rows[6:] == (
        (None, None, "better", None, 0.9, "the server"),
        (None, None, "ours", None, 0.8531, "the server"),
    )
    assert "| better |  | 0.900000 | the server |" in table.markdown()
    assert "No official score of the test split was entered on this board." in final_results([]).notes


def test_counts_of_photographs_are_exact():
    here = {"DARN": (5, 182780, False), "MVC": (5, 156448, False), "MPV": (5, 50290, True), "ours": (1, 2, False)}
    table = sources_table(here)
    judged = {row[0]: row[5] for row in table.rows if row[4] is not None}
    assert judged == {"DARN": "yes", "MVC": "no, by -1", "MPV": None, "ours": None}
    assert table.rendered
    assert any("RENDERED" in note for note in table.notes)
    assert "| DARN | 91,390 | 5 | 182,780 | 182,780 | yes | photographs |" in table.markdown()
    assert not sources_table({}).rendered


def test_settings_of_other_names_are_refused():
    with pytest.raises(InputError, match="table 4: 'Speed' is not in it; expected Backbone"):
        settings_table({"here": {"Speed": "9"}})


def test_markdown():
    found = tables({5: {"WBF_1": {"AP50": 0.83}, "a|b": {"AP50": 1.0}}})
    lines = found[5].markdown().splitlines()
    assert lines[0] == "### Table 5: Weighted boxes fusion"
    assert "measured on photographs (validation 3fa9) | AP50 reproduced (within 1 point) |" in lines[2]
    assert lines[4] == "| WBF_1 | ATSS | 83.6 | 83.0 | yes |"
    assert lines[5] == "| WBF_2 | + Cascade Mask R-CNN | 84.0 |  |  |"
    assert lines[9] == "| a\\|b |  |  | 100.0 |  |"
    assert "m7 was trained on the validation set" in found[6].markdown()
    assert "| m4 | 0.869435 |  |  | 0.840060 |  |  |" in found[6].markdown()


def test_what_is_not_in_the_paper_is_refused():
    with pytest.raises(InputError, match="table 8: cannot be measured, expected one of 2, 3, 5, 6, 7"):
        tables({8: {}})
    with pytest.raises(InputError, match="unknown column 'AP60', expected one of AP, AP50"):
        tables({2: {"ATSS": {"AP60": 0.5}}})
    with pytest.raises(InputError, match="unknown column 'test Acc@10', expected one of validation Acc@10"):
        tables({6: {"m4": {"test Acc@10": 0.5}}})
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\], got 72.8"):
        tables({2: {"ATSS": {"AP": 72.8}}})


def test_the_page_has_all_of_it_and_keeps_to_itself(tmp_path):
    evil = "<script>alert(1)</script>"
    measured = {3: {"m0": {"Acc@10": 0.868}, "m1": {"Acc@10": 0.5}, evil: {"Acc@10": 0.5}}}
    found = [*tables(measured).values(), final_results([replace(TOLD, source=evil)]), sources_table({})]
    html = write_html_page(found, tmp_path / "out" / "tables.html").read_text()
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
    assert "1 of 2 judged figures, all of photographs, are within the tolerance" in text
    assert evil in text
    assert html.count("<script") == 1
    assert set(re.findall(r'(?:src|href|action)="([^"]*)"', html)) == {"#tables"}
    assert not re.search(r"https?://|@import|url\(", html)
    assert html.count("<table>") == 7
    assert 'class="reproduced yes"' in html
    assert 'class="reproduced no"' in html
    assert "no, by -0.3730" in text
    assert "RENDERED" not in text


def test_the_page_shouts_where_data_was_rendered():
    html = html_page(list(tables({3: {"m0": {"Acc@10": 0.868}}}, rendered=True).values()))
    assert "<strong>RENDERED</strong>" in html
    assert "judged figures" not in html
