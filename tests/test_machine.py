"""What the machine has: the memory that a control group leaves, and the most that was used."""

import os

import pytest

from app.machine import available_memory_bytes, forget_peak_memory, peak_memory_megabytes, usable_cores

GROUPS = {
    2: ("", ("memory.max", "memory.current", "inactive_file"), "max"),
    1: (
        "memory/",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        "9223372036854771712",
    ),
}


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize("limited", ["", "slurm", "slurm/job_7", None])
def test_the_limit_of_any_group_around_the_process_counts(tmp_path, version, limited):
    """At the root as in a container, at the job's two levels down, or nowhere."""
    place, (limit, use, files), unlimited = GROUPS[version]
    lines = {2: "0::/slurm/job_7\n", 1: "5:cpuset:/\n4:hugetlb,memory:/slurm/job_7\n0::/\n"}
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(lines[version])
    for group in ("", "slurm", "slurm/job_7"):
        folder = tmp_path / "sys" / "fs" / "cgroup" / place / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{5_000_000 if group == limited else unlimited}\n")
        (folder / use).write_text("3000000\n")
        (folder / "memory.stat").write_text(f"anon 1\n{files} 1000000\n")
    assert available_memory_bytes(tmp_path) == (8_192_000 if limited is None else 3_000_000)


@pytest.mark.parametrize(
    ("bound_to", "quota", "expected"),
    [
        (8, None, 8),
        (8, "max 100000", 8),
        (8, "250000 100000", 2),
        (8, "50000 100000", 1),
        (1, "400000 100000", 1),
    ],
)
def test_cores_are_those_of_the_process_and_of_its_container(
    tmp_path, monkeypatch, bound_to, quota, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound_to)))
    if quota:
        (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
        (tmp_path / "sys" / "fs" / "cgroup" / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path) == expected


def test_a_system_that_says_nothing_has_the_memory_that_is_built_in(tmp_path):
    assert available_memory_bytes(tmp_path) > 100_000_000


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be forgotten here"
)
def test_the_peak_of_an_earlier_run_is_forgotten():
    held = bytearray(b"x") * 200_000_000
    before = peak_memory_megabytes()
    del held
    forget_peak_memory()
    assert peak_memory_megabytes() < before - 150
