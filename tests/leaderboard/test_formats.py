import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.entered import EnteredScore
from leaderboard.escapes import latex_text, markdown_text, spreadsheet_text
from leaderboard.formats import as_csv, as_json, as_latex, as_markdown
from leaderboard.standings import sections
from tests.leaderboard.samples import sample, with_hits

ENTERED = [EnteredScore("m4 + WBF_5 | qe(5)", "final", "test", {10: 0.854168}, "challenge server")]


def board(rendered: bool = True):
    return sections(
        [
            with_hits("top", 80, rendered=rendered, spec="m4 + WBF_5 | rerank(k1=20,k2=6,lambda=0.3)"),
            with_hits("near", 79, rendered=rendered, stages=()),
            with_hits("saw", 99, rendered=rendered, contamination="m7 was trained on validation"),
            with_hits("truth", 90, rendered=rendered, spec="m4 + GT"),
        ]
    )


def test_csv_has_a_line_for_every_result():
    lines = list(csv.DictReader(io.StringIO(as_csv(board()))))
    assert [(line["boxes"], line["rank"], line["name"]) for line in lines] == [
        ("detected", "1", "top"),
        ("detected", "2", "near"),
        ("detected", "", "saw"),
        ("ground-truth", "1", "truth"),
    ]
    assert {line["pictures"] for line in lines} == {"RENDERED"}
    assert all(line["remarks"].startswith("RENDERED") for line in lines)
    assert (lines[0]["Acc@10"], lines[0]["seconds"], lines[1]["seconds"]) == ("0.8", "60.0", "")
    assert lines[0]["cannot be told from"] == "1 other: #2"
    assert float(lines[0]["Acc@10 low"]) < 0.8 < float(lines[0]["Acc@10 high"])
    assert "Contaminated: m7 was trained on validation" in lines[2]["remarks"]
    assert "RENDERED" not in as_csv(board(rendered=False))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\n+", "＝"])
def test_csv_starts_no_formula(start):
    (section,) = sections([sample(f'{start}cmd|"calc"!A1,;', spec=f"{start}1", hardware={"cpu": f"{start}2"})])
    (line,) = csv.DictReader(io.StringIO(as_csv([section])))
    assert line["name"].lstrip("'").strip().startswith(start.strip())
    for name in ("name", "spec", "hardware"):
        assert line[name].startswith("'")


@given(st.text())
def test_no_text_is_taken_for_a_formula(text):
    assert spreadsheet_text(text).lstrip(" ")[:1] not in set("=+-@\t\r\n＝＋－＠")


def test_markdown_has_a_table_a_section():
    text = as_markdown(board(), ENTERED)
    tables = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(tables) == 3
    for table in tables[:2]:
        assert table.startswith("RENDERED data, not DeepFashion2: validation ffffffff")
        heading, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
        assert heading.count("RENDERED") == 6
        assert all("RENDERED" in line for line in lines)
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (heading, *lines)}) == 1
    assert "m4 + WBF_5 \\| rerank(k1=20,k2=6,lambda=0.3)" in tables[0]
    assert tables[2].startswith("Told elsewhere, not measured here")
    assert "| 0.854168 | challenge server |" in tables[2]
    assert "RENDERED" not in as_markdown(board(rendered=False), ENTERED)
    assert as_markdown([]) == "No rows yet.\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("m4*0.5,m5*0.5", "m4\\*0.5,m5\\*0.5"),
        ("WBF_5 _x_", "WBF_5 \\_x\\_"),
        ("[a](b)`c`\\", "\\[a\\](b)\\`c\\`\\\\"),
        ("# one\ntwo", "# one two"),
        ("", ""),
    ],
)
def test_markdown_shows_texts_as_they_are(text, shown):
    assert markdown_text(text) == shown


def test_latex_has_a_table_a_section():
    text = as_latex(board(), ENTERED)
    assert text.count("\\begin{table*}") == text.count("\\end{table*}") == 3
    assert text.count("\\toprule") == text.count("\\bottomrule") == 3
    assert text.count("\\midrule") == 4  # under every heading, and before the row that does not count
    for table in text.split("\\begin{tabular}")[1:]:
        columns = re.match(r"\{@\{\}([lr]+)@\{\}\}", table)[1]
        lines = [line for line in table.splitlines() if line.endswith(" \\\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    assert text.count("RENDERED Acc@10 &") == 2
    assert "\\textbar{} rerank" in text
    assert "RENDERED" not in as_latex(board(rendered=False), ENTERED)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("100 % & #1 $x_1^2$", "100 \\% \\& \\#1 \\$x\\_1\\textasciicircum{}2\\$"),
        ("\\input{x}~", "\\textbackslash{}input\\{x\\}\\textasciitilde{}"),
        ("a--b-c---", "a-{}-b-c-{}-{}-"),
        ("1–2 <b>", "1--2 \\textless{}b\\textgreater{}"),
        ("[a]*", "{[}a{]}{*}"),
        ("one\ntwo", "one two"),
    ],
)
def test_latex_shows_texts_as_they_are(text, shown):
    assert latex_text(text) == shown


@given(st.text())
def test_no_character_means_anything_to_tex(text):
    shown = latex_text(text)
    for known in ("\\textbackslash{}", "\\textasciicircum{}", "\\textasciitilde{}", "\\textbar{}", "\\textless{}"):
        shown = shown.replace(known, "")
    for known in ("\\textgreater{}", "\\textquotedbl{}", "\\textasciigrave{}", "\\textquotesingle{}", "\\dots{}"):
        shown = shown.replace(known, "")
    for known in ("$\\times$", "{[}", "{]}", "{*}", "{}"):
        shown = shown.replace(known, "")
    assert not re.search(r"(?<!\\)[{}$&#%_^~]", shown)
    assert not re.search(r"\\(?![{}$&#%_])", shown)


def test_json_has_everything():
    told = json.loads(json.dumps(as_json(board(), ENTERED)))
    first, second = told["sections"]
    assert (first["boxes"], second["boxes"], first["rendered"], first["num_queries"]) == (
        "detected",
        "ground-truth",
        True,
        100,
    )
    assert [entry["rank"] for entry in first["ranked"]] == [1, 2]
    assert first["ranked"][0]["tied_with"] == [first["ranked"][1]["row"]]
    assert first["ranked"][0]["acc"]["10"] == 0.8
    assert (first["ranked"][0]["total_seconds"], first["ranked"][1]["total_seconds"]) == (60, None)
    assert first["ranked"][0]["rendered"] is True
    assert first["apart"][0]["reasons"] == ["Contaminated: m7 was trained on validation"]
    assert first["apart"][0]["tied_with"] is None
    assert told["entered"][0]["acc"] == {"10": 0.854168}
    assert as_json([]) == {"sections": [], "entered": []}
