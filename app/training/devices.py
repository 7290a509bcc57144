"""Which replicas a training has: one a device, on TensorFlow or JAX, and one strategy for all of them."""

import functools
from typing import Any

import keras

from app.errors import UserError
from app.training.distribute import Replicas
from app.workers.cluster import local_count
from app.workers.team import Team


def set_up(team: Team) -> Replicas:
    """Return the replicas of a training, one for each device that `startup.configure` left visible.

    To be called before TensorFlow runs its first operation.

    Raises:
        UserError: The workers have different numbers of devices, or they are several and this is JAX.
    """
    if keras.backend.backend() == "jax":
        return _set_up_jax(team)
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if local_count() > 1:  # workers that try it out on one machine divide its accelerators
        gpus = gpus[team.index :: local_count()]
        tf.config.set_visible_devices(gpus, "GPU")
    if team.size > 1:
        counts = [len(each) or 1 for each in team.exchange("devices", [gpu.name for gpu in gpus])]
        if len(set(counts)) > 1:
            told = ", ".join(f"{team.name(i)} has {count}" for i, count in enumerate(counts))
            raise UserError(f"every worker needs the same number of devices: {told}")
        return Replicas(team, tf.distribute.MultiWorkerMirroredStrategy(), sum(counts))
    names = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    if len(names) == 1:
        return Replicas(team)
    return Replicas(team, _mirrored(tuple(names)), len(names))


@functools.cache
def _mirrored(names: tuple[str, ...]) -> Any:
    """Return the strategy of some devices; two of them in a process would mix up their exchanges."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


def _set_up_jax(team: Team) -> Replicas:
    """Spread batches over the local devices of JAX, where there are several."""
    if team.size > 1:
        raise UserError(
            "KERAS_BACKEND=jax: several workers train on TensorFlow; on JAX, all devices of one machine"
        )
    devices = keras.distribution.list_devices()
    if len(devices) == 1:
        keras.distribution.set_distribution(None)
        return Replicas(team)

    distribution = _Replicated(devices=devices, auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)

    def shard(images: Any) -> Any:
        if images.shape[0] is None or images.shape[0] % len(devices):
            return images
        axes = [distribution.batch_dim_name, *[None] * (len(images.shape) - 1)]
        return keras.distribution.distribute_tensor(
            images, keras.distribution.TensorLayout(axes, distribution.device_mesh)
        )

    return Replicas(team, None, len(devices), shard)


class _Replicated(keras.distribution.DataParallel):
    """Data parallelism that hands whole batches to all devices; the classifier takes them apart.

    Keras lays out all batches as it does the first, and the last may be one that the devices do not divide.
    """

    def get_data_layout(self, data_shape: Any) -> Any:
        """Return the layout of a whole batch on every device."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
