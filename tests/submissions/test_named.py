import re
from pathlib import Path

import pytest

from harness.types import InputError
from submissions.named import named_ensembles


def test_the_papers_tables_are_there() -> None:
    """Table 6 has eight rows with two figures each, Table 7 three with two; one row stands in both."""
    figures = [(figure, one) for one in named_ensembles().values() for figure in one.published]
    for split in ("validation", "test"):
        table6 = {figure.source for figure, _ in figures if figure.split == split and "Table 6" in figure.source}
        assert table6 == {f"Table 6, row {row}" for row in range(1, 9)}
    table7 = {figure.source for figure, _ in figures if figure.acc_at_1 is not None}
    assert table7 == {f"Table 7, row {row}" for row in range(1, 4)}
    assert all(figure.acc_at_10 is not None for figure, _ in figures)
    best = max((figure for figure, _ in figures if figure.split == "test"), key=lambda figure: figure.acc_at_10 or 0)
    assert (best.source, best.acc_at_10) == ("Table 6, row 7", 0.854168)


def test_members_trained_on_validation_are_noted() -> None:
    """m7 saw the validation split: a spec whose range of models spans it says so, unless m7 is left out."""
    for name, ensemble in named_ensembles().items():
        spans = any(int(a) <= 7 <= int(b) for a, b in re.findall(r"^m(\d+)-(\d+)", ensemble.spec))
        with_m7 = spans and not re.search(r"w/o m(6-7|7|6-9)\)", ensemble.spec)
        assert ("validation split (Table 3)" in ensemble.note) == with_m7, name


def test_every_spec_is_in_the_ensemble_language() -> None:
    spec = pytest.importorskip("harness.spec")
    parsed = {name: spec.parse(ensemble.spec) for name, ensemble in named_ensembles().items()}
    assert len({str(one) for one in parsed.values()}) == len(parsed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "x"', "spec: Field required; the keys are title, spec"),
        ('title = "x"\nspec = "m4"\nweight = 3', "weight: Extra inputs"),
        ('title = "x"\nspec = "m4"\n[[published]]\nsource = "T"\nsplit = "val"', "published.0.split"),
        ('title = "x"\nspec = "m4"\n[[published]]\nsource = "T"\nsplit = "test"\nacc_at_10 = 85.4', "acc_at_10"),
        ("title =", "is not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=rf"mine\.toml: .*{re.escape(message)}"):
        named_ensembles(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        named_ensembles(tmp_path / "none")
    assert named_ensembles(tmp_path) == {}
