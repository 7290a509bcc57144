"""Seeds, number format, device and determinism of a run, and a record of what it all ran on."""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from app.backend import silence
from app.config import Experiment
from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.machine import CPU_FLAGS, bound_cores, commit, package_versions
from models import processor

EMULATED = "8.8 times as long a step as float32 (measured: FastCifar10 in bfloat16 on two AVX2 cores)"


def resolve_precision(experiment: Experiment, group: ProcessGroup | None = None) -> Experiment:
    """Return the experiment with the number format that `training.precision: auto` stands for here.

    It is bfloat16 where the devices have instructions for it, those of all workers, else float32.

    Args:
        experiment: Any; it is returned as it is where it names a format.
        group: The workers that train it together, each of which has to ask.
    """
    if experiment.training.precision != "auto":
        return experiment
    has_instructions = computes_in("bfloat16", experiment.training.devices)
    if group:
        has_instructions = all(group.all_gather("bfloat16", has_instructions))
    return experiment.with_auto(precision="bfloat16" if has_instructions else "float32")


def precision_advice(precision: str, devices: str = "auto") -> str | None:
    """Return what to know of an experiment's number format on the devices here, None if it is a good one."""
    if precision == "auto":
        return None
    if not computes_in(precision, devices):
        return (
            f"training.precision: {precision} is emulated here, without instructions for it: "
            f"{EMULATED}; auto or float32 avoids that"
        )
    if precision == "float32" and computes_in("bfloat16", devices):
        return "training.precision: auto would be faster: bfloat16, for which there are instructions here"
    return None


def remarks(asked: Experiment, resolved: Experiment, num_images: int) -> Iterator[str]:
    """Yield what a user should read of the number format and of what is `auto` before training starts."""
    training = asked.training
    if training.epochs == "auto":
        yield f"training.epochs: auto is {resolved.training.epochs} for {num_images:,} training images"
    if training.precision == "auto":
        yield f"training.precision: auto is {resolved.training.precision} here"
    elif training.precision != "float32":  # which may be wanted
        if advice := precision_advice(training.precision, training.devices):
            yield advice


def computes_in(precision: str, devices: str) -> bool:
    """Return whether the devices that train have instructions for a number format."""
    accelerators = _accelerators(devices)
    if not accelerators:
        return processor.computes_in(precision)
    return precision != "bfloat16" or all(map(_has_bfloat16, accelerators))


def _has_bfloat16(accelerator: Any) -> bool:
    """Return whether a GPU (CUDA from compute capability 8.0 on) or TPU computes in bfloat16."""
    if keras.backend.backend() == "jax":
        capability = str(getattr(accelerator, "compute_capability", "")).split(".")
        return accelerator.platform == "tpu" or (capability[0].isdigit() and int(capability[0]) >= 8)
    details = sys.modules["tensorflow"].config.experimental.get_device_details(accelerator)
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def configure(*, seed: int, precision: str, devices: str, determinism: str | None = None) -> bool:
    """Set seeds, number format, device and determinism for one run in this process.

    Args:
        seed: Seed of weights, dropout and augmentation.
        precision: "float32", "bfloat16" or "float16"; the last two compute mixed, with float32 variables.
            `resolve_precision` says what "auto" is.
        devices: "auto", "cpu" or "gpu".
        determinism: "strict" for operations that give the same bits from the same state, "fast" for
            whatever is quickest; by default strict on a CPU and fast on a GPU, where it would cost much.

    Returns:
        Whether operations are deterministic: the same bits from the same state.

    Raises:
        UserError: A GPU was asked for and there is none, the device was chosen too late, a limit set for
            oneDNN bars the precision, or strict determinism is asked of JAX, which does not offer it.
    """
    backend = keras.backend.backend()
    # Names of layers and variables count from one again. It also forgets the dtype policy, so it comes first.
    keras.utils.clear_session(free_memory=False)
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    keras.utils.set_random_seed(seed)
    tf: Any = sys.modules.get("tensorflow")
    gpus = _accelerators(devices)
    if devices == "gpu" and not gpus:
        cure = '.venv/bin/python -m pip install "jax[cuda12]"' if backend == "jax" else "make clean install"
        raise UserError(
            "training.devices: received 'gpu', but no GPU is visible here; "
            f"set it to 'auto' or 'cpu', or install the driver and run `{cure}`"
        )
    if backend == "tensorflow" and not gpus and processor.is_barred(precision):
        raise UserError(
            f"training.precision: received '{precision}', which TensorFlow cannot compute on this processor "
            f"with ONEDNN_MAX_CPU_ISA={processor.onednn_settings()['ONEDNN_MAX_CPU_ISA']}; unset that "
            "variable, or choose 'auto' or 'float32'"
        )
    if tf and (devices == "cpu" or backend == "jax"):
        try:
            with _without_driver_messages():
                tf.config.set_visible_devices(
                    [], "GPU"
                )  # where it only feeds JAX it must not take the memory
        except RuntimeError as error:
            message = "training.devices: 'cpu' must be chosen before the first run in a process"
            raise UserError(message) from error
    if backend == "jax":
        if determinism == "strict":
            raise UserError("training.determinism: 'strict' is not offered on JAX; leave it out, or 'fast'")
        return False
    if determinism == "fast" or (determinism is None and gpus):
        return False
    tf.config.experimental.enable_op_determinism()
    return True


def _accelerators(devices: str) -> list[Any]:
    """Return the devices other than CPUs that the backend may use."""
    if keras.backend.backend() == "jax":
        import jax  # only where JAX is the backend

        if devices == "cpu":
            jax.config.update("jax_platforms", "cpu")
        return [device for device in jax.devices() if device.platform != "cpu"]
    tf: Any = sys.modules.get("tensorflow")
    if tf is None or devices == "cpu":
        return []
    with _without_driver_messages():
        return tf.config.list_physical_devices("GPU")


def _without_driver_messages() -> contextlib.AbstractContextManager[None]:
    """Hold back that TensorFlow reports a missing driver as an error."""
    drivers = Path("/proc/driver/nvidia"), Path("/dev/dxg")  # the second is that of WSL
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")  # on purpose: no fault of a driver
    return silence() if hidden or not any(each.exists() for each in drivers) else contextlib.nullcontext()


def describe_environment(deterministic: bool) -> dict[str, Any]:
    """Return versions, commit, device, threads and CPU flags, as kept in environment.json."""
    if keras.backend.backend() == "tensorflow":
        tf = sys.modules["tensorflow"]
        details, visible = tf.config.experimental.get_device_details, tf.config.get_visible_devices()
        devices = [details(each).get("device_name", each.device_type) for each in visible]
        threads = {  # 0: TensorFlow's choice, one a core
            kind: int(os.environ.get(f"TF_NUM_{kind.replace('_', '').upper()}_THREADS") or 0)
            for kind in ("intra_op", "inter_op")
        }
    else:
        devices = [device.device_kind for device in _accelerators("auto")] or ["CPU"]
        threads = {}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "versions": package_versions(),
        "commit": commit(),
        "devices": devices,
        "cpu": {
            "model": processor.cpuinfo("model name") or platform.processor(),
            "count": bound_cores(),
            "flags": [flag for flag in CPU_FLAGS if flag in processor.cpu_flags()],
        },
        "threads": threads,
        "onednn": processor.onednn_settings() if keras.backend.backend() == "tensorflow" else {},
        "deterministic": deterministic,
        "command": [re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", word) for word in sys.argv],  # without passwords
    }
