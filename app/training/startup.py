"""Seeds, number format, device and determinism of a run, and a record of what it all ran on."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras

from app.errors import UserError
from app.paths import project_root
from app.training import silence

_PACKAGES = ("tensorflow", "keras", "jax", "jaxlib", "numpy", "pillow", "scikit-learn", "matplotlib")
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "neon", "sve")


def configure(*, seed: int, precision: str, devices: str, determinism: str | None = None) -> bool:
    """Set seeds, number format, device and determinism for one run in this process.

    Args:
        seed: Seed of weights, dropout and augmentation.
        precision: "float32", "bfloat16" or "float16"; the last two compute mixed, with float32 variables.
        devices: "auto", "cpu" or "gpu".
        determinism: "strict" for operations that give the same bits from the same state, "fast" for
            whatever is quickest; by default strict on a CPU and fast on a GPU, where it would cost much.

    Returns:
        Whether operations are deterministic: the same bits from the same state.

    Raises:
        UserError: A GPU was asked for and there is none, the device was chosen too late, or strict
            determinism is asked of JAX, which does not offer it.
    """
    backend = keras.backend.backend()
    # Names of layers and variables count from one again. It also forgets the dtype policy, so it comes first.
    keras.utils.clear_session(free_memory=False)
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")  # a keras.json in the home folder may say otherwise
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    keras.utils.set_random_seed(seed)
    tf: Any = sys.modules.get("tensorflow")
    # Without a driver TensorFlow reports its failed look for one as an error.
    with silence() if not Path("/proc/driver/nvidia").exists() else contextlib.nullcontext():
        tf_gpus = tf.config.list_physical_devices("GPU") if tf else []
    gpus = tf_gpus if backend == "tensorflow" else _jax_accelerators(devices)
    if devices == "gpu" and not gpus:
        raise UserError(
            "training.devices: received 'gpu', but no GPU is visible here; "
            "set it to 'auto' or 'cpu', or install the driver and run `make install` again"
        )
    if tf and (devices == "cpu" or backend == "jax"):
        try:
            tf.config.set_visible_devices([], "GPU")  # where it only feeds JAX it must not take the memory
        except RuntimeError as error:
            message = "training.devices: 'cpu' must be chosen before the first run in a process"
            raise UserError(message) from error
    if backend == "jax":
        if determinism == "strict":
            raise UserError("training.determinism: 'strict' is not offered on JAX; leave it out, or 'fast'")
        return False
    on_gpu = gpus and devices != "cpu"
    if determinism == "fast" or (determinism is None and on_gpu):
        return False
    tf.config.experimental.enable_op_determinism()
    return True


def _jax_accelerators(devices: str) -> list[Any]:
    """Return the devices other than CPUs that JAX may use."""
    import jax  # only where JAX is the backend

    if devices == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return [device for device in jax.devices() if device.platform != "cpu"]


def describe_environment(deterministic: bool) -> dict[str, Any]:
    """Return versions, commit, device, threads and CPU flags, as kept in environment.json."""
    if keras.backend.backend() == "tensorflow":
        tf = sys.modules["tensorflow"]
        devices = [device.device_type for device in tf.config.get_visible_devices()]
        threads = {  # 0: TensorFlow's choice, one a core
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        }
    else:
        devices = [device.device_kind for device in _jax_accelerators("auto")] or ["CPU"]
        threads = {}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "versions": package_versions(),
        "commit": _commit(),
        "devices": devices,
        "cpu": {
            "model": _cpuinfo("model name") or platform.processor(),
            "count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "flags": [flag for flag in _CPU_FLAGS if flag in _cpuinfo("flags").split()],
        },
        "threads": threads,
        "deterministic": deterministic,
        "command": sys.argv,
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that decide what a training computes."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _cpuinfo(key: str) -> str:
    """Return the first value of `key` in /proc/cpuinfo, empty where there is none."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""


def _commit() -> str | None:
    """Return the checkout's commit, marked `+changes` where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(project_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
