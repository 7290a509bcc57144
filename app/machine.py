"""What a program runs on: memory, installed versions, the checkout's commit, and a machine in words."""

import contextlib
import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from app.errors import UserError
from app.records import EnvironmentRecord

_PACKAGES = ("tensorflow", "keras", "jax", "jaxlib", "numpy", "pillow", "scikit-learn", "matplotlib")
CPU_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "asimdhp", "sve", "bf16",
)  # fmt: skip

_GROUP_NAMES = {  # limit, use, and of that files that were read: given up where memory is wanted
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Return how much memory can be had: the machine's, or what is left of a container's or a job's limit.

    What the system says is read below `root`.
    """
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, KeyError, ValueError):  # another system
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    return max(min([available, *_left_in_groups(root)]), 0)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left of the limit of each control group around this process, of both versions."""
    lines = []
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:  # number:controllers:path; version 2 names no controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        limit, use, files = _GROUP_NAMES["memory" if controllers else ""]
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            folder = root / "sys/fs/cgroup" / ("memory" if controllers else "") / each
            with contextlib.suppress(OSError, KeyError, ValueError):  # no limit here, or not to be seen
                left = int((folder / limit).read_text()) - int((folder / use).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield left + int(stat[files])


def bound_cores() -> int:
    """Return how many cores this process is bound to: as many threads TensorFlow starts, quota or not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those it is bound to, or fewer by a container's quota."""
    cores = bound_cores()
    with contextlib.suppress(OSError, ValueError):  # no quota, or not to be seen
        quota, period = map(int, (root / "sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


def check_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raise a UserError on an x86 processor without AVX, where importing the libraries ends the process."""
    with contextlib.suppress(OSError):  # another system
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
        if flags and "avx" not in flags[1].split():
            raise UserError(
                "TensorFlow and JAX need a processor with AVX, and this one does not show it; if this is a "
                "virtual machine, give it the CPU type of its host"
            )


def free_disk_bytes(folder: Path) -> int:
    """Return the free space where `folder` lies or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def peak_memory_megabytes() -> int:
    """Return the largest resident memory of this process so far, or since `forget_peak_memory`."""
    with contextlib.suppress(OSError, KeyError):  # another system
        return round(status_megabytes("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)  # bytes there, KiB elsewhere


def status_megabytes(name: str) -> float:
    """Return a size that Linux tells of this process in /proc/self/status, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e6  # Linux's kB are KiB


def forget_peak_memory() -> None:
    """Let what this process held before no longer count as its peak, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def package_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of packages that are installed, by default those that decide what is computed."""
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def commit() -> str | None:
    """Return the commit of this program's checkout, marked `+changes` where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_machine(environment: EnvironmentRecord) -> str:
    """Return processor, accelerators, workers and backend in a few words."""
    model = re.sub(r"\((?:R|TM)\)|@.*| CPU| Processor", "", environment.cpu.model).strip()
    workers = [f"{environment.workers} workers"] if environment.workers > 1 else []
    backend = f"{environment.backend} {environment.versions.get(environment.backend, '')}"
    return ", ".join(
        [f"{environment.cpu.count} x {model}", *accelerators(environment.devices), *workers, backend]
    )


def accelerators(devices: Sequence[str]) -> list[str]:
    """Return those of a record's devices that are no CPUs."""
    return [device for device in devices if device.upper() != "CPU"]
