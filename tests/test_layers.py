"""One door per vendor, and no heavy import where an answer must come at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOORS = {
    "mmdet": {"harness/detection"},
    "mmcv": {"harness/detection"},
    "mmengine": {"harness/detection"},
    "ensemble_boxes": {"harness/detection/fusion.py", "harness/detection/fusion_baseline.py"},
    "optuna": {
        "harness/ranking/selection/weighing.py",
        "harness/detection/fusion_study.py",
        "harness/retrieval/tuning/studies.py",
        "harness/retrieval/tuning/database.py",
        "harness/retrieval/tuning/searching.py",
    },
    "matplotlib": {"harness/retrieval/tuning/plots.py"},
    "timm": {"harness/retrieval"},
    "pytorch_metric_learning": {"harness/retrieval"},
    "faiss": {"harness/ranking/search/faiss_products.py", "harness/ranking/search/faiss_flat.py"},
    "pycocotools": {"harness/scoring"},
    "faster_coco_eval": {"harness/scoring"},
    "sqlalchemy": {"leaderboard"},
    "alembic": {"leaderboard/migrations", "leaderboard/opening.py"},
    "jinja2": {"leaderboard/pages/rendering.py"},
    "werkzeug": {"leaderboard/pages/server.py"},
    "waitress": {"leaderboard/pages/server.py"},
    "pynvml": {"harness/timing"},
    "typer": {"run.py", "harness/commands"},
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def sources() -> list[Path]:
    folders = ("harness", "submissions", "leaderboard")
    return [ROOT / "run.py", *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))]


@pytest.mark.parametrize("vendor", DOORS)
def test_every_vendor_has_one_door_and_uses_it(vendor: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in sources() if vendor in imports(path)}
    assert users, f"{vendor} is a dependency that nothing uses"
    assert all(any(user.startswith(door) for door in DOORS[vendor]) for user in users), users


LIGHT = [
    ["--help"],
    ["evaluate", "results.json", "--query", "query.json", "--gallery", "gallery.json"],
    ["check", "results.json"],
    ["evaluate-boxes", "found.json", "--truth", "truth.json"],
    ["leaderboard", "show"],
    ["leaderboard", "compare", "first.json", "second.json"],
    ["leaderboard", "export", "board.json"],
    ["leaderboard", "html"],
    ["leaderboard", "migrate"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_answer_without_torch(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['run.py', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'pytorch_lightning', 'mmdet', 'timm', 'faiss', 'numba', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
