"""What there is of memory and disk, and the refusal of what does not fit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import preflight
from harness.preflight import Needs, Room, available_disk, available_memory, gigabytes, require
from harness.types import InputError


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": MEMINFO}, 8_000_000 * 1024),
        # Version 2: 3 GB less 2 GB in use, of which 0.5 GB are pages of files.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/jobs/one\n",
                "sys/fs/cgroup/jobs/one/memory.max": "3000000000\n",
                "sys/fs/cgroup/jobs/one/memory.current": "2000000000\n",
                "sys/fs/cgroup/jobs/one/memory.stat": "anon 1500000000\ninactive_file 500000000\n",
            },
            1_500_000_000,
        ),
        # The group above leaves less than the own one, which has no limit.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/jobs/one\n",
                "sys/fs/cgroup/jobs/one/memory.max": "max\n",
                "sys/fs/cgroup/jobs/one/memory.current": "5\n",
                "sys/fs/cgroup/jobs/memory.max": "700\n",
                "sys/fs/cgroup/jobs/memory.current": "600\n",
            },
            100,
        ),
        # A container sees its own group as the root.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/docker/abc\n",
                "sys/fs/cgroup/memory.max": "900\n",
                "sys/fs/cgroup/memory.current": "1000\n",
            },
            0,
        ),
        # Version 1, with a limit that means none in another group.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "3:cpu:/\n2:memory,hugetlb:/box\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "4000\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "3000\n",
                "sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 500\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000\n",
            },
            1500,
        ),
        ({}, None),
    ],
)
def test_memory_that_is_left(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, files)) == expected


def test_memory_of_this_machine() -> None:
    there = available_memory()
    assert there is not None
    assert 1e7 < there < os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_limit_of_the_process_counts() -> None:
    script = (
        "import resource; from harness.preflight import available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 1 << 30


def test_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    there = available_disk(tmp_path / "not" / "there")
    assert abs(there - found.f_bavail * found.f_frsize) < 1e9
    assert there > 0


def test_sizes_are_in_gigabytes() -> None:
    assert [gigabytes(n) for n in (0, 9, 4_100_000, 4_100_000_000, 19_333_000_000, 123_456_000_000_000)] == [
        "0.000 GB",
        "<0.001 GB",
        "0.004 GB",
        "4.1 GB",
        "19.3 GB",
        "123,456 GB",
    ]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 GB of memory, 10 GB of disk."""
    monkeypatch.setattr(preflight, "available_memory", lambda root: 5_000_000_000)
    monkeypatch.setattr(preflight, "available_disk", lambda folder: 10_000_000_000)


@pytest.mark.usefixtures("room")
def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    require()
    require(Needs("embed"), Needs("search", 5_000_000_000, 10_000_000_000, tmp_path))


@pytest.mark.usefixtures("room")
def test_memory_is_of_each_stage_and_disk_of_all(tmp_path: Path) -> None:
    require(Needs("embed", 4_000_000_000), Needs("search", 4_000_000_000))
    with pytest.raises(InputError) as refusal:
        require(Needs("embed", 0, 6_000_000_000, tmp_path), Needs("project", 0, 6_000_000_000, tmp_path / "deep"))
    assert str(refusal.value) == (
        f"project: needs about 6.0 GB of disk in {tmp_path / 'deep'}, but 4.0 GB are free there after the stages "
        "before it (6.0 GB); nothing was started"
    )


@pytest.mark.usefixtures("room")
def test_the_refusal_says_what_would_fit(tmp_path: Path) -> None:
    def hints(there: Room) -> list[str]:
        assert there == Room(5_000_000_000, 10_000_000_000, None)
        return [f"{there.disk_bytes // 2_000_000_000} models", "--work on another disk"]

    with pytest.raises(InputError) as refusal:
        require(Needs("embed m0-17", 0, 12_000_000_000, tmp_path, hints=hints))
    assert str(refusal.value) == (
        f"embed m0-17: needs about 12.0 GB of disk in {tmp_path}, but 10.0 GB are free there; nothing was started. "
        "What would fit: 5 models; --work on another disk"
    )
    with pytest.raises(InputError, match=r"search: needs about 6\.0 GB of memory, but 5\.0 GB are free there"):
        require(Needs("search", 6_000_000_000))


@pytest.mark.usefixtures("room")
def test_a_gpu_counts_where_torch_knows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    require(Needs("embed", gpu_bytes=10**12, device="cpu"))
    monkeypatch.setattr(preflight, "available_gpu", lambda device: 2_000_000_000 if device == "cuda:1" else None)
    with pytest.raises(InputError, match=r"embed: needs about 3\.0 GB of memory on cuda:1, but 2\.0 GB are free"):
        require(Needs("embed", gpu_bytes=3_000_000_000, device="cuda:1"))


def test_looking_loads_no_torch() -> None:
    script = (
        "import sys; from pathlib import Path; from harness.preflight import Needs, require\n"
        "require(Needs('x', 1, 1, Path('.'), 1, 'cuda:0')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.gpu
def test_free_bytes_of_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    there = preflight.available_gpu("cuda:0")
    assert there is not None
    assert 0 < there <= torch.cuda.mem_get_info("cuda:0")[1]
