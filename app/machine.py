"""What a program runs on: memory, versions, commit, a machine in words, and whether Keras can come up."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from app.errors import UserError
from app.paths import shown
from app.records import EnvironmentRecord
from app.wording import install_extra, nearest, received

_PACKAGES = ("tensorflow", "keras", "jax", "jaxlib", "numpy", "pillow", "scikit-learn", "matplotlib")
BACKENDS = ("tensorflow", "jax")
_WHOLE, _COUNTS = "[0-9]{1,6}", "[1-9][0-9]{0,5}( *, *[1-9][0-9]{0,5})*"
_NUMBERS = {
    "TF_NUM_INTRAOP_THREADS": (_WHOLE, "must be a whole number"),
    "TF_NUM_INTEROP_THREADS": (_WHOLE, "must be a whole number"),
    "OMP_NUM_THREADS": (_COUNTS, "must be a whole number from 1 on"),
}
_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
_JSON_KEYS = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
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
    return len(os.sched_getaffinity(0))


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
    with contextlib.suppress(OSError, KeyError):  # a container that tells less
        return round(status_megabytes("VmHWM"))
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)  # of KiB


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
        # Git does without the repository of another user, whose code runs here anyway.
        command = ["git", "-c", "safe.directory=*", "-C", str(Path(__file__).parent), *arguments]
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


def check_backend(environment: Mapping[str, str] = os.environ) -> None:
    """See that Keras can come up.

    Raises:
        UserError: KERAS_BACKEND or keras.json name what does not exist, the backend is not installed, a
            variable is no number, or the processor has no AVX.
    """
    check_processor()
    for name, (pattern, rule) in _NUMBERS.items():
        if environment.get(name) and not re.fullmatch(pattern, environment[name].strip()):
            raise UserError(f"{name}: {rule}; got {received(environment[name])}. Leave it out for all cores")
    for name in _LIMITS:
        if environment.get(name):
            raise UserError(f"{name}: cuts every training of Keras short; leave it out (make train EPOCHS=2)")
    file = keras_home(environment) / "keras.json"
    settings = _keras_settings(file)
    source, backend = "KERAS_BACKEND", environment.get("KERAS_BACKEND")
    if not backend:
        source, backend = f"{shown(file)}: backend", settings.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        meant = nearest(backend, BACKENDS) if isinstance(backend, str) else None
        guess = f"; did you mean '{meant}'?" if meant else ""
        raise UserError(
            f"{source}: must be one of {', '.join(BACKENDS)}, on which this program trains; got "
            f"{received(backend)}{guess}"
        )
    if backend != BACKENDS[0] and not _installed(backend):
        raise UserError(
            f"{source}: {backend} is not installed here; leave it out to train on {BACKENDS[0]}, or install "
            f"it: {install_extra(backend)}"
        )
    for library in ("keras", *BACKENDS[: backend == BACKENDS[0]]):
        if not _installed(library):
            raise UserError(
                f"{library} is not installed, or not whole: `make clean install` makes the installation anew"
            )


def keras_home(environment: Mapping[str, str]) -> Path:
    """Return the folder in which Keras looks for keras.json."""
    home = os.path.expanduser("~")  # as Keras does, where there is no home
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(environment.get("KERAS_HOME", default)))


def _keras_settings(file: Path) -> dict[str, Any]:
    """Return the settings in keras.json, none where there is no such file."""
    if not file.exists():
        return {}
    advice = "; mend it, or delete it: Keras writes it anew"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({error}){advice}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{shown(file)}: must be a mapping of keys; got {received(settings)}{advice}")
    for key, allowed in _JSON_KEYS.items():
        if key in settings and settings[key] not in allowed:
            rule = f"must be one of {', '.join(allowed)}; got {received(settings[key])}"
            raise UserError(f"{shown(file)}: {key}: {rule}{advice}")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise UserError(f"{shown(file)}: epsilon: must be a number such as 1e-07{advice}")
    return settings


def _installed(library: str) -> bool:
    """Return whether a library is there, as more than an empty folder of a broken installation."""
    try:
        found = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None
