"""What `evaluate` prints and writes."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from harness.types import InputError
from run import app
from tests.scoring.worlds import FAR, item, query, result, write

A = [0.0, 0.0, 100.0, 100.0]
SHOP = [10.0, 10.0, 110.0, 110.0]
QUERIES = [query(1, A), query(2, A, cls=2), query(3, A), query(4, A)]
RESULTS = [
    result(1, FAR, score=0.9, right={1: (50, SHOP)}),
    result(2, A, cls=2, right={6: (50, SHOP)}),
    result(3, A, cls=7),
]


def files(folder: Path) -> list[str]:
    results, queries, gallery = write(folder, RESULTS, QUERIES, [item(50, SHOP)])
    return ["evaluate", str(results), "--query", str(queries), "--gallery", str(gallery)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_a_summary_fits_a_screen_and_says_it_all(tmp_path: Path) -> None:
    done = run(*files(tmp_path))
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert len(lines) < 35
    figures = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("official", "strict"))}
    assert figures["official"][:5] == ["0.250000", "0.250000", "0.500000", "0.500000", "0.500000"]
    assert figures["strict"][:5] == ["0.000000", "0.000000", "0.250000", "0.250000", "0.250000"]
    assert "Hits within the first 10 that are lost by the strict rules: 1; gained: 0" in lines
    assert "  1 lost: the box that speaks overlaps the item by less than 0.5 (S1)" in lines
    assert ["hit", "2", "50.0%"] in [line.split() for line in lines]
    assert ["no", "detection", "1", "25.0%"] in [line.split() for line in lines]
    assert ["wrong", "class", "1", "25.0%"] in [line.split() for line in lines]
    assert any(line.startswith("warning: gallery_image_id: ") for line in lines)
    assert lines[-1] == "more: --ladder, --slices, --ledger OUT.csv, --gallery-detections COCO.json"


def test_tables_are_shown_where_they_are_asked_for_and_fit_80_columns(tmp_path: Path) -> None:
    done = run(*files(tmp_path), "--ladder", "--slices", "--protocol", "strict")
    assert "+ every query detected" in done.stdout
    assert "short sleeve top" in done.stdout
    assert "What became of the queries, strict protocol" in done.stdout
    assert "…" not in done.stdout
    tables = [line for line in done.stdout.splitlines() if not line.startswith(("warning", "/"))]
    assert max(map(len, tables)) <= 80


def test_the_chosen_protocol_leads_the_json(tmp_path: Path) -> None:
    told = json.loads(run(*files(tmp_path), "--protocol", "strict", "--json").stdout)
    assert (told["protocol"], told["num_queries"], told["acc"]["10"]) == ("strict", 4, 0.25)
    assert told["protocols"]["official"]["acc"]["10"] == 0.5
    assert told["ledger"]["hit"] == 1


def test_a_ledger_is_written_with_gallery_detections(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    found.write_text(json.dumps([{"image_id": 50, "category_id": 1, "bbox": FAR, "score": 0.9}]))
    rows = [*RESULTS, result(4, A)]
    command = files(tmp_path)
    Path(command[1]).write_text(json.dumps(rows))
    table = tmp_path / "ledger.parquet"
    done = run(*command, "--ledger", str(table), "--gallery-detections", str(found))
    assert f"{table}: the outcome of every query" in done.stdout
    expected = ["hit", "hit", "wrong class", "not in gallery"]
    assert pyarrow.parquet.read_table(table).to_pydict()["outcome"] == expected


def test_a_ledger_of_unknown_format_is_refused_before_the_work(tmp_path: Path) -> None:
    command = files(tmp_path)
    Path(command[1]).write_text("damaged")
    with pytest.raises(InputError, match=r"ledger\.txt: expected a ledger file that ends in \.parquet or \.csv"):
        run(*command, "--ledger", str(tmp_path / "ledger.txt"))


def test_attributes_are_taken_from_the_annotations_of_a_data_set(tmp_path: Path) -> None:
    annotations = tmp_path / "df2" / "validation" / "annos"
    annotations.mkdir(parents=True)
    for row in QUERIES:
        shown = {"scale": 2, "occlusion": 1, "zoom_in": 1, "viewpoint": row["query_image_id"] % 3 + 1}
        garment = {
            "category_name": "vest",
            "category_id": row["cls"],
            "style": row["style"],
            "bounding_box": row["bbox"],
            "landmarks": [],
            "segmentation": [],
            **shown,
        }
        path = annotations / f"{row['query_image_id']:06d}.json"
        path.write_text(json.dumps({"source": "user", "pair_id": row["pair_id"], "item1": garment}))
    told = json.loads(run(*files(tmp_path), "--data", str(tmp_path / "df2"), "--json").stdout)
    counts = {(one["group"], one["name"]): one["num_queries"] for one in told["slices"]}
    assert counts["viewpoint", "frontal"] == 2
    assert counts["scale", "modest"] == 4
    with pytest.raises(InputError, match="test/annos: no such folder"):
        run(*files(tmp_path), "--data", str(tmp_path / "df2"), "--split", "test")


def test_rendered_photos_are_named_as_such_by_every_command_that_scores(tmp_path: Path) -> None:
    command = files(tmp_path)
    assert "RENDERED" not in run(*command).stdout
    results, queries, gallery = write(tmp_path, RESULTS, [row | {"rendered": 1} for row in QUERIES], [item(50, SHOP)])
    assert "4 queries of RENDERED photos, not DeepFashion2" in run(*command).stdout.replace("\n", " ")
    assert json.loads(run(*command, "--json").stdout)["rendered"] is True
    compared = run(
        "leaderboard", "compare", str(results), str(results), "--query", str(queries), "--gallery", str(gallery)
    )
    assert "RENDERED data: " in compared.stdout
