"""Killed in the middle of any stage and started again, the whole job goes on and ends with the same figures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
from rich.console import Console
from harness.progress import silent
from harness.quickstart import job, report
from harness.workplace import Workplace

if __name__ == "__main__":
    work = Workplace(Path(sys.argv[1]))
    settings = job.QuickstartSettings(
        seed=3, retrievers=("m4", "m9"), num_train=60, num_validation=30, num_test=2,
        detector_steps=3, retriever_steps=3, fusion_trials=2, boxes_per_photo=2,
    )
    result = job.quickstart(work, settings, silent)
    published = report.publish(work, result)
    Console(stderr=True, width=160).print(*report.tables(result, published))
    found = report.as_json(result, published)
    figures = {key: found[key] for key in ("box_ap", "num_boxes", "acc_ground_truth_boxes", "acc_fused_boxes", "histogram_acc")}
    print(json.dumps(figures))
"""  # noqa: E501

MOMENTS = (
    "data/train/image/000009.jpg",
    "models/detectors/CenterNet/plan.json",
    "models/retrievers/*/plan.json",
    "progress/train/*/progress.json",
    "store/fit-fusion/*",
    "store/fuse/*",
    "store/embed/*",
    "store/search/*",
    "leaderboard.sqlite",
)


def start(script: Path, work: Path) -> subprocess.Popen[str]:
    with (script.parent / "errors").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(script), str(work)], stdout=subprocess.PIPE, stderr=errors, text=True
        )


def finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = child.communicate(timeout=280)
    told = (Path(str(child.args[1])).parent / "errors").read_text()  # type: ignore[index]
    assert child.returncode == 0, told
    assert told.count("RENDERED data, not DeepFashion2") >= 2, "every table of accuracies must say what it is of"
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@pytest.mark.timeout(600)
def test_killed_at_any_moment_the_job_ends_with_the_same_figures(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    expected = finish(start(script, tmp_path / "whole"))
    work, kills = tmp_path / "killed", 0
    for moment in MOMENTS:
        child = start(script, work)
        while child.poll() is None and not any(work.glob(moment)):
            time.sleep(0.01)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.communicate()
    assert kills >= len(MOMENTS) - 2, "the job must still have been at work at nearly every moment"
    assert finish(start(script, work)) == expected
    assert not list(work.rglob("store/**/*.part"))
