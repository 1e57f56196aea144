import re
import shutil
import subprocess
from pathlib import Path

import pytest

from leaderboard.pages import write_page
from leaderboard.store import Board
from tests.leaderboard.samples import sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--dump-dom",
]

PROBE = """<script>
const table = document.querySelector("table[data-sortable]");
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[1].dataset.value).join(",");
const header = (column) => table.tHead.rows[0].cells[column];
const log = ["start " + names()];
for (const column of [1, 4, 4, 6, 0]) {
  header(column).querySelector("button").click();
  log.push(column + " " + header(column).getAttribute("aria-sort") + " " + names());
}
log.push("sorted " + document.querySelectorAll("[aria-sort]").length);
log.push("plot " + header(3).querySelectorAll("button").length);
const choice = table.previousElementSibling.querySelector("select");
choice.selectedIndex = 1;
choice.dispatchEvent(new Event("change"));
log.push("choice " + names());
document.body.innerHTML = "<pre>" + log.join("\\n") + "</pre>";
</script></body>"""


def dumped(page: Path, profile: Path) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_columns_sort_by_click_and_by_choice(tmp_path):
    board = Board(tmp_path / "board.db")
    board.add(sample("b", [1, 1, 2, 0], stage_seconds={"embed": 5.0}))
    board.add(sample("C", [3, 4, 0, 0], stage_seconds={"embed": 40.0}))
    board.add(sample("a", [1, 0, 0, 0], stage_seconds={}))
    page = write_page(board, tmp_path / "page.html")
    page.write_text(page.read_text().replace("</body>", PROBE))
    text = re.search(r"<pre>(.*)</pre>", dumped(page, tmp_path / "profile"), re.DOTALL)
    assert text
    assert text[1].splitlines() == [
        "start b,C,a",
        "1 ascending a,b,C",
        "4 descending b,a,C",
        "4 ascending C,a,b",
        "6 ascending b,C,a",  # a row without timings comes last
        "0 ascending b,C,a",
        "sorted 1",
        "plot 0",
        "choice a,b,C",
    ]
