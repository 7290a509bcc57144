"""Which replicas a training has: one a device, on TensorFlow or JAX, and how they find each other."""

import functools
from typing import Any

import keras

from app.errors import UserError
from app.training.distribute import Replicas
from app.workers.cluster import local_count
from app.workers.team import Team


def connect(team: Team, seed: int, devices: str) -> None:
    """Let JAX know of all workers, which must come before it computes anything; TensorFlow can wait."""
    if team.size > 1 and keras.backend.backend() == "jax":
        from app.training import jax_replicas

        jax_replicas.connect(team, seed, "cpu" if local_count() > 1 else devices)


def set_up(team: Team) -> Replicas:
    """Return the replicas of a training, one for each device that `startup.configure` left visible.

    To be called before TensorFlow runs its first operation.

    Raises:
        UserError: The workers have different numbers of devices.
    """
    if keras.backend.backend() == "jax":
        import jax

        several = _count(team, jax.local_device_count()) > 1
        keras.distribution.set_distribution(None)  # an earlier run in this process may have left its own
        from app.training.jax_replicas import JaxReplicas

        return JaxReplicas(team) if several else Replicas(team)
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if local_count() > 1:  # workers that try it out on one machine divide its accelerators
        gpus = gpus[team.index :: local_count()]
        tf.config.set_visible_devices(gpus, "GPU")
    if team.size > 1:
        count = _count(team, len(gpus) or 1)
        return Replicas(team, tf.distribute.MultiWorkerMirroredStrategy(), count)
    names = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    if len(names) == 1:
        return Replicas(team)
    return Replicas(team, _mirrored(tuple(names)), len(names))


def _count(team: Team, own: int) -> int:
    """Return the number of devices of all workers together."""
    counts = team.exchange("devices", own)
    if len(set(counts)) > 1:
        told = ", ".join(f"{team.name(i)} has {count}" for i, count in enumerate(counts))
        raise UserError(f"every worker needs the same number of devices: {told}")
    return sum(counts)


@functools.cache
def _mirrored(names: tuple[str, ...]) -> Any:
    """Return the strategy of some devices; two of them in a process would mix up their exchanges."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)
