import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import write_detections
from harness.data.box_files import read_boxes
from harness.types import Detections, InputError

ROWS = [
    {"image_id": 7, "bbox": [1, 2, 3.5, 4], "category_id": 99, "score": 5},
    {"bbox": [0, 0, 0, 0], "image_id": 3},
]


def test_json_of_widths_and_heights(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(ROWS))
    image_ids, boxes = read_boxes(path)
    assert image_ids.tolist() == [7, 3]
    assert boxes.tolist() == [[1, 2, 4.5, 6], [0, 0, 0, 0]]
    with zipfile.ZipFile(tmp_path / "boxes.zip", "w") as archive:
        archive.write(path, "boxes.json")
    assert read_boxes(tmp_path / "boxes.zip")[1].tolist() == boxes.tolist()
    path.write_text("[]")
    assert [part.shape for part in read_boxes(path)] == [(0,), (0, 4)]


def test_parquet_of_corners(tmp_path: Path) -> None:
    path = tmp_path / "boxes.parquet"
    boxes = np.array([[1.5, 2, 4, 6], [0, 0, 1, 1]])
    write_detections(path, Detections(np.array([7, 3]), boxes, np.ones(2), np.array([1, 13])))
    image_ids, found = read_boxes(path)
    assert image_ids.tolist() == [7, 3]
    assert found.tolist() == boxes.tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "expected a COCO results list"),
        ("a.json", b"{}", "expected a COCO results list"),
        ("a.json", b'[{"image_id": 1}]', "missing required field `bbox`"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3]}]', r"\$\[0\].bbox"),
        ("a.json", b'[{"image_id": "1", "bbox": [1, 2, 3, 4]}]', r"\$\[0\].image_id"),
        ("a.json", b'[{"image_id": -1, "bbox": [1, 2, 3, 4]}]', "row 0: expected an image id of at least 0"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3, -4]}]', "row 0: expected a box whose sides are not negative"),
        ("a.json", b'[{"image_id": 1, "bbox": [1e308, 2, 1e308, 4]}]', "row 0: expected finite pixels"),
        ("a.json", b'[{"image_id": 1e400, "bbox": [1, 2, 3, 4]}]', "expected a COCO results list"),
        ("a.json", b"[" * 100_000, "expected a COCO results list"),
        ("a.parquet", b"PAR1", "cannot be read as boxes"),
    ],
)
def test_what_is_no_file_of_boxes(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_boxes(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)


@pytest.mark.parametrize("name", ["none.json", "none.parquet"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_boxes(tmp_path / name)


def test_parquet_of_other_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "boxes.parquet"
    columns = {name: [1.0] for name in ("x1", "y1", "x2", "y2")}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match="image_id"):
        read_boxes(path)
    pq.write_table(pa.table(columns | {"image_id": [1.0]}), path)
    with pytest.raises(InputError, match="image_id: expected integers, got float64"):
        read_boxes(path)
