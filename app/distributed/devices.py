"""The replicas of a training, one for each device: their setup on TensorFlow and JAX."""

import functools
from typing import Any

import keras

from app.distributed.process_group import ProcessGroup
from app.distributed.replicas import Replicas
from app.errors import UserError


def connect(group: ProcessGroup, devices: str) -> None:
    """Connect the JAX of all workers, before it computes anything; TensorFlow connects in `set_up`.

    Raises:
        UserError: Workers of one machine are to compute on GPUs, which JAX cannot divide.
    """
    if group.size == 1 or keras.backend.backend() != "jax":
        return
    if group.num_local and devices == "gpu":
        raise UserError(
            f"WORKERS={group.num_local}: on JAX the workers of one machine compute on its processor; leave "
            "WORKERS out, which trains on all GPUs, or SET=training.devices=cpu"
        )
    import jax

    if group.num_local or devices == "cpu":
        jax.config.update("jax_platforms", "cpu")
    # Under Slurm, JAX asked by Keras would give each process one GPU.
    jax.distributed.initialize(
        group.addresses[0], group.size, group.index, cluster_detection_method="deactivate"
    )
    if not group.is_chief:  # without the chief JAX aborts the process; be quicker, and say why
        group.grace_seconds = 0.0


def set_up(group: ProcessGroup) -> Replicas:
    """Return the replicas of a training, one for each device that `startup.configure` left visible.

    To be called before TensorFlow runs its first operation.

    Raises:
        UserError: The workers have different numbers of devices, or are more than this machine's GPUs.
    """
    if keras.backend.backend() == "jax":
        import jax

        several = _count(group, jax.local_device_count()) > 1
        keras.distribution.set_distribution(None)  # an earlier run in this process may have left its own
        from app.distributed.jax_replicas import JaxReplicas

        return JaxReplicas(group) if several else Replicas(group)
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if 0 < len(gpus) < group.num_local:
        raise UserError(
            f"WORKERS={group.num_local}: each worker needs a GPU, and this machine has {len(gpus)}; choose "
            "fewer workers, or SET=training.devices=cpu"
        )
    if group.num_local:  # workers on one machine divide its GPUs
        gpus = gpus[group.index :: group.num_local]
        tf.config.set_visible_devices(gpus, "GPU")
    if group.size > 1:
        count = _count(group, len(gpus) or 1)
        return Replicas(group, tf.distribute.MultiWorkerMirroredStrategy(), count)
    names = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    if len(names) == 1:
        return Replicas(group)
    return Replicas(group, _mirrored(tuple(names)), len(names))


def _count(group: ProcessGroup, own: int) -> int:
    """Return the number of devices of all workers."""
    counts = group.all_gather("devices", own)
    if len(set(counts)) > 1:
        received = ", ".join(f"{group.name(i)} has {count}" for i, count in enumerate(counts))
        raise UserError(f"every worker needs the same number of devices: {received}")
    return sum(counts)


@functools.cache
def _mirrored(names: tuple[str, ...]) -> Any:
    """Return the strategy for some devices; the collectives of two in one process get mixed up."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)
