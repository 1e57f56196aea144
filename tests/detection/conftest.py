from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from drawn_photos import write_photos

from harness.data.deepfashion2 import read_split
from harness.types import Split


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("photos")
    write_photos(root, "train", 12)
    return read_split(root, "train")
