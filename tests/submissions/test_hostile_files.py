"""Whatever a file holds: the checker, the repair, the comparison and the command answer, and never with a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.types import InputError
from run import app
from submissions.checker import check_submission
from submissions.difference import compare_submissions
from submissions.problems import FIELDS
from submissions.repair import repair_submission
from tests.submissions.samples import make_photos, make_row

HOSTILE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, 2**63, 2**64, -(2**63), 10**400, 0, 1, 13, 20])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", "1.0", "NaN", "\ud800", "1e999", " 7 ", "٣"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner),
    max_leaves=30,
)
RAW = st.sampled_from(
    ["1e999", "-1e999", "1E400", "-0", "-0.0", "9" * 400, "9" * 5000, '"\\ud800"', "[" * 90 + "]" * 90]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound file with fields replaced, removed and given twice, cut, and with bytes put in."""
    rows = []
    for image_id in range(draw(st.integers(1, 4))):
        row: dict[str, Any] = make_row(image_id)
        for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
            match draw(st.integers(0, 3)):
                case 0:
                    row.pop(name, None)
                case 1:
                    row[name] = draw(VALUES)
                case _:
                    if isinstance(row.get(name), list) and row[name]:
                        row[name] = list(row[name])
                        row[name][draw(st.integers(0, len(row[name]) - 1))] = draw(VALUES)
        fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in row.items()]
        if draw(st.booleans()) and fields:
            fields.append(draw(st.sampled_from(fields)))
        if draw(st.booleans()):
            fields.append(f'"{draw(st.sampled_from(FIELDS))}": {draw(RAW)}')
        rows.append("{" + ", ".join(fields) + "}")
    data = ("[" + ",\n".join(rows) + "]").encode()
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    for place in draw(st.lists(st.integers(0, len(data)), max_size=3)):
        data = data[:place] + draw(st.binary(max_size=4)) + data[place:]
    return data


def answers(path: Path) -> None:
    """Everything answers in a way that fits together."""
    out = path.with_name("out.json")
    out.unlink(missing_ok=True)
    report = check_submission(path, make_photos(3))
    assert report.ok == (not any(one.severity == "error" for one in report.problems))
    assert sum(min(group.num_problems, 1000) for group in report.groups) == len(report.problems)
    sized = make_photos(3, size=(100, 200))
    try:
        repaired = repair_submission(path, out, sized)
    except InputError:
        assert not out.exists()
    else:
        again = repair_submission(out, path.with_name("again.json"), sized)
        assert again.repairs == ()
        assert out.read_bytes() == path.with_name("again.json").read_bytes()
        assert repaired.after.problems == again.before.problems
    try:
        found = compare_submissions(path, path)
    except InputError:
        assert not (report.ok and report.num_rows)
    else:
        assert found.is_none
    assert not list(path.parent.glob(".*"))


def command(*arguments: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit | InputError), result.exception
    assert result.exit_code in (0, 1)
    if isinstance(result.exception, InputError):
        assert str(arguments[-1]) in str(result.exception) or str(arguments[0]) in str(result.exception)
    return result.exit_code, result.stdout


@HOSTILE
@given(st.binary(max_size=200) | st.text(alphabet='[]{},:"\\ 0aeE.-+nu\ufeff\x00', max_size=60).map(str.encode))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    answers(tmp_path / "r.json")


@HOSTILE
@given(st.lists(VALUES, max_size=5) | VALUES)
def test_any_json(tmp_path: Path, value: Any) -> None:
    (tmp_path / "r.json").write_text(json.dumps(value))
    answers(tmp_path / "r.json")


@settings(HOSTILE, max_examples=250)
@given(mutated())
def test_any_spoilt_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    answers(tmp_path / "r.json")


@settings(HOSTILE, max_examples=40)
@given(mutated() | st.binary(max_size=50))
def test_the_command_prints_one_object_whatever_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    for options in ((), ("--fix", tmp_path / "out.json")):
        command(path, *options)
        status, text = command(path, *options, "--json")
        found = json.loads(text)
        assert found["ok"] == (status == 0)
        assert all({"where", "what"} <= one.keys() for one in found["problems"])
    status, text = command("--diff", path, path, "--json")
    assert json.loads(text).get("ok", True) == (status == 0)
    command(path, "--diff", path)


@pytest.mark.parametrize("depth", [80, 99, 101, 300, 900, 990, 1000, 2000, 100_000])
@pytest.mark.parametrize("where", ["row", "field", "string id"])
def test_deep_nesting(tmp_path: Path, depth: int, where: str) -> None:
    nested = "[" * depth + "]" * depth
    row = json.dumps(make_row("7" if where == "string id" else 7))
    text = nested if where == "row" else row[:-1] + f', "note": {nested}}}'
    (tmp_path / "r.json").write_text(f"[{text}, {json.dumps(make_row(1))}]")
    path = tmp_path / "r.json"
    for options in ((), ("--fix", tmp_path / "out.json"), ("--fix", tmp_path / "out.json", "--json"), ("--json",)):
        command(path, *options)
    command("--diff", path, path)


def test_half_a_surrogate_pair_in_repeated_rows(tmp_path: Path) -> None:
    """Python's json reads it, msgspec does not."""
    rows = [make_row(1, **{"\ud800": "\udfff"}), make_row(1, query_score="\ud800")]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    kinds = [one.kind for one in check_submission(tmp_path / "r.json").problems]
    assert kinds == ["unknown-field", "repeat", "not-a-score"]
    answers(tmp_path / "r.json")


def test_a_row_of_very_many_wrong_entries_is_answered_at_once(tmp_path: Path) -> None:
    row = json.dumps(make_row(1)).replace("[100,", "[" + '"x",' * 900_000 + "100,", 1)
    (tmp_path / "r.json").write_text(f"[{row}]")
    report = check_submission(tmp_path / "r.json")
    assert sum(group.num_problems for group in report.groups) == 21
